"""Prefill and the token loop; knows arrays and token ids only."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.graphs import Decoder, Floats, Graph

Keys = npt.NDArray[np.int64]
"""What stands at every position of a prompt: token ids, and for image tokens the digest of their tile."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer."""

    token_id: int
    logprobs: Logprobs | None = None
    """None unless they were asked for."""


def prefill(decoder: Decoder, inputs_embeds: Floats, on_chunk: Callable[[], None] = lambda: None) -> Floats:
    """Fill the cache with a prompt [positions, hidden]; return the logits [vocab_size] of its last position."""
    decoder.reserve(decoder.length + len(inputs_embeds))
    for start in range(0, len(inputs_embeds), decoder.chunk):
        logits = decoder(inputs_embeds[start : start + decoder.chunk])
        on_chunk()
    return logits[-1]


class PromptCache:
    """Which prompt is in a decoder's cache: the next one need not compute again what both begin with.

    Only whole chunks are kept. Numbers depend, in their last bits, on how many positions are computed together, and
    rounding activations to 8 bits makes more of that. So a prompt is cut into the same chunks whether its beginning is
    there or not, and gives the same logits to the last bit. An answer, which was computed token by token, is computed
    again as a part of the next prompt.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._keys: Keys = np.empty(0, np.int64)

    def keep(self, keys: Keys) -> int:
        """Forget what the prompt with these keys [positions] does not begin with; return how many positions are left.

        Its last position is never among them, because that one's logits are wanted.
        """
        length = min(len(self._keys), len(keys) - 1)
        differ = np.flatnonzero(self._keys[:length] != keys[:length])
        alike = int(differ[0]) if len(differ) else length
        kept = alike - alike % self.decoder.chunk
        self._keys = keys[:kept]
        self.decoder.truncate(kept)
        return kept

    def fill(self, keys: Keys, inputs_embeds: Floats, on_chunk: Callable[[int, int], None]) -> Floats:
        """Compute the rest of a prompt, after `keep`.

        Args:
            keys: Those of the whole prompt [positions].
            inputs_embeds: Of the positions that were not kept [positions - kept, hidden].
            on_chunk: Called with the positions in the cache and their total. It may raise: what is there stays.

        Returns:
            The logits [vocab_size] of the last position.
        """

        def count() -> None:
            self._keys = keys[: self.decoder.length]
            on_chunk(len(self._keys), len(keys))

        return prefill(self.decoder, inputs_embeds, count)


def decode(
    decoder: Decoder,
    embed_tokens: Graph,
    logits: Floats,
    choose: Callable[[Floats], int],
    eos_token_ids: Collection[int],
    max_tokens: int,
    top_logprobs: int | None = None,
) -> Iterator[Step]:
    """Tokens one by one, an end token included; at most `max_tokens`.

    Args:
        decoder: With the prompt in its cache.
        embed_tokens: input_ids [1, 1] -> inputs_embeds [1, 1, hidden].
        logits: Of the prompt's last position.
        choose: The sampler.
        eos_token_ids: Any of these ends the answer.
        max_tokens: Longest answer.
        top_logprobs: Of how many tokens to tell how likely they were; None tells nothing.
    """
    for count in range(1, max_tokens + 1):
        token = choose(logits)
        yield Step(token, None if top_logprobs is None else Logprobs.of(logits, token, top_logprobs))
        if token in eos_token_ids or count == max_tokens:
            return
        logits = decoder(embed_tokens(np.array([[token]], np.int64))[0])[-1]
