"""Which prompt is in which slot of a decoder: what another one began with as well need not be computed again."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smolvlm_edge.graphs import Decoder, Floats, Graph

Keys = npt.NDArray[np.int64]
"""What stands at every position of a prompt: token ids, and for image tokens the digest of their tile."""
HELD_BYTES = 256 << 20
"""Keys and values that free slots keep for prompts to come; the latest prompt's are kept whatever they take."""
NOTHING: Keys = np.empty(0, np.int64)


class Slots:
    """Hands the slots of a decoder out, and remembers what is in them.

    Only whole chunks are used again. Numbers depend, in their last bits, on how many positions are computed together,
    and rounding activations to 8 bits makes more of that. So a prompt is cut into the same chunks whether its beginning
    is there or not, and gives the same logits to the last bit. An answer, which was computed token by token, is
    computed again as a part of the next prompt.

    Slots are handed out from the first on, so that those under way are neighbours: a run of the decoder computes
    whatever lies between the first of them and the last.
    """

    def __init__(self, decoder: Decoder, embed_tokens: Graph, budget: int | None = None) -> None:
        """Begin with empty slots.

        Args:
            decoder: Holds the keys and values.
            embed_tokens: input_ids [rows, positions] -> inputs_embeds [rows, positions, hidden].
            budget: Positions that all slots together may take; None for any number.
        """
        self.decoder, self.embed_tokens, self._budget = decoder, embed_tokens, budget
        self._keys = [NOTHING] * decoder.slots
        self._rooms: dict[int, int] = {}
        """Slot that is under way -> the positions that it may come to."""
        self._latest: list[int] = []
        """Free slots that hold something, the latest at the end."""

    @property
    def free(self) -> list[int]:
        """Slots that nobody has, in ascending order."""
        return [slot for slot in range(self.decoder.slots) if slot not in self._rooms]

    def take(self, keys: Keys, room: int) -> int:
        """A slot for the prompt with these keys [positions], which begins with what is known of it.

        Args:
            keys: Of the prompt.
            room: Positions that it and its answer may take.
        """
        # with several slots room for the whole answer at once, because every enlargement copies them all
        self.decoder.reserve(room if self.decoder.slots > 1 else len(keys))
        slot = self.free[0]
        if not self._rooms:  # it has no neighbours yet, and may lie where its beginning is
            slot = max(self.free, key=lambda each: self._alike(each, keys))
        self._rescue(slot, keys)
        self._rooms[slot] = room
        self._forget(slot, self._alike(slot, keys))
        self._trim()
        return slot

    def catch_up(self, slot: int, keys: Keys) -> int:
        """Copy what another slot has of a prompt and this one has not; the positions that are there now."""
        own = self.decoder.length_of(slot)
        best, source = max((self._alike(other, keys), other) for other in range(self.decoder.slots))
        if best > own:
            self.decoder.copy(source, slot, own, best)
            self._keys[slot] = keys[:best]
        return max(own, best)

    def append(self, slot: int, keys: Keys, inputs_embeds: Floats) -> Floats:
        """Compute the next chunk of a prompt.

        Args:
            slot: From `take`.
            keys: Those of the prompt up to the end of the chunk [positions].
            inputs_embeds: The chunk [new positions, hidden].

        Returns:
            The logits [vocab_size] of its last position; valid until the next call.
        """
        logits = self.decoder(inputs_embeds, slot=slot)
        self._keys[slot] = keys
        return logits[-1]

    def step(self, tokens: Sequence[int], slots: Sequence[int]) -> Floats:
        """Append a token to each of some slots, in ascending order; logits [slots, vocab_size] of what follows."""
        embeds = self.embed_tokens(np.array([[token] for token in tokens], np.int64))
        return self.decoder.step(embeds[:, 0], slots)

    def give_back(self, slot: int) -> None:
        """Free a slot; of its prompt, whole chunks stay for another one that begins with them."""
        del self._rooms[slot]
        known = len(self._keys[slot])
        self._forget(slot, known - known % self.decoder.chunk)
        if len(self._keys[slot]):
            self._latest.append(slot)
        self._trim()

    def move(self, source: int, target: int) -> None:
        """Let what is under way in a slot go on in a free one; its prompt stays behind, to be used again."""
        self._forget(target, 0)
        self.decoder.copy(source, target, 0, self.decoder.length_of(source))
        self._keys[target], self._rooms[target] = self._keys[source], self._rooms[source]
        self.give_back(source)

    def _alike(self, slot: int, keys: Keys) -> int:
        """How many positions of a prompt, in whole chunks, a slot has; never the last, whose logits are wanted."""
        known = self._keys[slot]
        length = min(len(known), len(keys) - 1)
        differ = np.flatnonzero(known[:length] != keys[:length])
        alike = int(differ[0]) if len(differ) else length
        return alike - alike % self.decoder.chunk

    def _rescue(self, slot: int, keys: Keys) -> None:
        """What a slot holds that is about to be used for something else goes where less would be lost."""
        if slot in self._latest and not self._alike(slot, keys):
            others = [other for other in self.free if other != slot and other not in self._latest]
            others += [other for other in self._latest[: self._latest.index(slot)] if not self._alike(other, keys)]
            if others:
                self._forget(others[0], 0)
                self.decoder.copy(slot, others[0], 0, self.decoder.length_of(slot))
                self._keys[others[0]] = self._keys[slot]
                self._latest[self._latest.index(slot)] = others[0]

    def _forget(self, slot: int, length: int) -> None:
        """Keep the first positions of a slot, and give the memory of the others back."""
        self._keys[slot] = self._keys[slot][:length]
        if slot in self._latest:
            self._latest.remove(slot)
        self.decoder.truncate(length, slot)
        if self.decoder.slots > 1:
            self.decoder.release(slot)

    def _trim(self) -> None:
        """Let free slots hold no more than they may; the oldest goes first."""
        if self.decoder.slots == 1:
            return
        limit = HELD_BYTES // self.decoder.bytes_per_position
        needed = sum(self._rooms.values())
        while self._latest:
            held = sum(len(self._keys[slot]) for slot in self._latest)
            too_much = len(self._latest) > 1 and held > limit
            if not too_much and (self._budget is None or needed + held <= self._budget):
                return
            self._forget(self._latest[0], 0)
