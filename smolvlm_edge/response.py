"""One answer: what is computed before its first token, and what becomes of every token."""

import time
from collections.abc import Callable, Generator, Sequence

from smolvlm_edge.conversation.model_input import ModelInput
from smolvlm_edge.generation.answer import Chunk, GenerateOptions
from smolvlm_edge.generation.decoding import Step
from smolvlm_edge.generation.driving import Caller, Job
from smolvlm_edge.generation.network import Features, Network
from smolvlm_edge.generation.reply import Reply
from smolvlm_edge.generation.scheduler import Work
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.generation.timings import Clock
from smolvlm_edge.graphs import Floats
from smolvlm_edge.pictures.images import Tiles


class Response(Job):
    """An answer under way, in pieces between which others get theirs."""

    def __init__(
        self,
        network: Network,
        prompt: ModelInput,
        reply: Reply,
        choose: Callable[[Floats], int],
        options: GenerateOptions,
        stop: Stop,
        clock: Clock,
        caller: Caller,
    ) -> None:
        """Begin one.

        Args:
            network: Computes it.
            prompt: What is answered.
            reply: Where its tokens go.
            choose: Logits [vocab_size] -> token.
            options: See `GenerateOptions`.
            stop: When to end early.
            clock: Measures it.
            caller: Who asked; told when the pictures are no longer held.
        """
        super().__init__(room=len(prompt.input_ids) + reply.max_tokens)
        self._network, self._reply, self._choose = network, reply, choose
        self._prompt: ModelInput | None = prompt
        self._options, self._stop, self._clock, self._caller = options, stop, clock, caller
        self._tiles, self._positions, self._videos = (
            sum(map(len, prompt.pictures)),
            len(prompt.input_ids),
            prompt.videos,
        )
        self._encoded = self._computed = 0
        self._asked = time.perf_counter()

    def work(self) -> Work:
        """Encode the pictures, a tile at a time, and read the prompt, a chunk at a time."""
        clock, prompt = self._clock, self._prompt
        assert prompt is not None
        clock.since("queue_ms", self._asked)
        features = yield from self._encode(prompt.pictures)
        with clock.measure("load_ms"):
            slots = self._network.open_text()
        self.slot, self.slots = slots.take(prompt.keys, self.room), slots
        progress, total = self._stop.after(self._options.get("on_prefill")), len(prompt.keys)
        while True:
            with clock.measure("prefill_ms"):
                start = slots.catch_up(self.slot, prompt.keys)
                stop = min(start + slots.decoder.chunk, total)
                inputs_embeds = prompt.embed(start, stop, slots.embed_tokens, features)
                logits = slots.append(self.slot, prompt.keys[:stop], inputs_embeds)
                self._computed += stop - start
            progress(stop, total)
            if stop == total:
                self._prompt = None  # its pictures take more memory than its answer, which may be long
                self._caller.unread = False
                return logits
            yield

    def accept(self, logits: Floats) -> int | None:
        """Choose a token, and send its text on its way; None instead of the last one."""
        reply, step = self._reply, Step.choose(logits, self._choose, self._options.get("top_logprobs"))
        text = reply.push(step.token_id)
        timings = self._clock.timings(
            tiles=self._tiles,
            encoded_tiles=self._encoded,
            prompt_tokens=self._positions,
            cached_tokens=self._positions - self._computed,
            generated_tokens=reply.tokens,
            batch_size=self.neighbours / self.decoded if self.decoded else 0.0,
            finished=reply.finish_reason is not None,
        )
        self.chunks.append(Chunk(text, step.token_id, reply.finish_reason, timings, self._videos, step.logprobs))
        return None if reply.finish_reason else step.token_id

    def check(self) -> None:
        """Go on, or else raise StoppedError."""
        self._stop.check()

    def _encode(self, pictures: Sequence[Tiles]) -> Generator[None, None, Features]:
        """The features of all tiles; each is computed once, whoever shows it."""
        network = self._network
        features = network.recall(pictures)
        missing = {
            digest: (picture, index)
            for picture in pictures
            for index, digest in enumerate(picture.digests)
            if digest not in features
        }
        progress = self._stop.after(self._options.get("on_tile"))
        for done, (digest, (picture, index)) in enumerate(missing.items(), start=1):
            found = network.known(picture, index)  # meanwhile, by another answer
            features[digest] = self._encoded_tile(picture, index) if found is None else found
            progress(done, len(missing))
            if found is None:
                yield
        return features

    def _encoded_tile(self, picture: Tiles, index: int) -> Floats:
        with self._clock.measure("load_ms"):
            self._network.open_vision()
        with self._clock.measure("vision_ms"):
            self._encoded += 1
            return self._network.encode(picture, index)
