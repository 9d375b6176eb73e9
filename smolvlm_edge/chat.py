"""A conversation of several turns."""

import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, Unpack

from smolvlm_edge.conversation.messages import Conversation, RawMessage, Source, ask, check_last_turn, read_messages
from smolvlm_edge.errors import ContextError, RequestError
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions, check_options
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.pictures.video import Picture

Respond = Callable[[Conversation, list[Picture], GenerateOptions, Stop], Generator[Chunk, None, None]]
"""`SmolVLM.respond`."""
Text = str | Sequence[Mapping[str, Any]]
OnFull = Literal["stop", "drop"]
"""What becomes of a conversation that is longer than the model's context."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A question and its answer."""

    messages: tuple[RawMessage, RawMessage]
    conversation: Conversation
    pictures: list[Picture]


class Chat:
    """A conversation: every question is asked with all that was said and shown before. Made by `SmolVLM.chat`.

    What the model computed for the turns so far is used again, unless another question to the model came in between;
    the answers are those of `SmolVLM.generate(messages=chat.messages)` to the last token, either way. A picture is read
    once, when its turn comes; its file may be gone afterwards.
    """

    def __init__(
        self, respond: Respond, system: str | None, options: GenerateOptions, on_full: OnFull = "stop"
    ) -> None:
        """Use `SmolVLM.chat`."""
        self.system = system
        """What the model is told before the first turn; may be changed between turns."""
        self._respond, self._options, self._on_full = respond, options, on_full
        self._turns: list[_Turn] = []
        self._answering = Lock()

    @property
    def messages(self) -> list[RawMessage]:
        """The conversation so far, the system's text first, in the form that `SmolVLM.generate` takes."""
        return [*self._instruction(), *(message for turn in self._turns for message in turn.messages)]

    def ask(self, text: Text, images: Source | Sequence[Source] = (), **options: Unpack[GenerateOptions]) -> Answer:
        """The answer to the next question; takes what `stream` takes."""
        return Answer.of(self.stream(text, images, **options))

    def stream(
        self, text: Text, images: Source | Sequence[Source] = (), **options: Unpack[GenerateOptions]
    ) -> Generator[Chunk, None, None]:
        """Answer the next question, token by token.

        An answer that is ended early – closed, cancelled, too slow – stays in the conversation as far as it came; a
        question that was not answered at all leaves no trace.

        Args:
            text: The question; or content parts, as `messages` of `SmolVLM.stream` have them, with pictures anywhere.
            images: Pictures and videos to show before it.
            **options: See `GenerateOptions`; they come before those that `SmolVLM.chat` was given.

        Returns:
            An iterator over chunks, one per token.

        Raises:
            RequestError, ImageError, StoppedError: As `SmolVLM.stream`; and if the chat is still answering.
        """
        merged = GenerateOptions(**{**self._options, **options})
        return self._stream(text, images, merged, Stop(merged.get("cancel"), merged.get("timeout")))

    def astream(
        self, text: Text, images: Source | Sequence[Source] = (), **options: Unpack[GenerateOptions]
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` for `async for`; see `SmolVLM.astream`."""
        from smolvlm_edge.generation.background import stream_in_thread  # noqa: PLC0415 - asyncio, for who uses it

        merged = GenerateOptions(**{**self._options, **options})
        stop = Stop(merged.get("cancel"), merged.get("timeout"))
        return stream_in_thread(lambda: self._stream(text, images, merged, stop), stop)

    def clear(self) -> None:
        """Forget all turns; the system's text stays."""
        self._turns = []

    def _stream(
        self, text: Text, images: Source | Sequence[Source], options: GenerateOptions, stop: Stop
    ) -> Generator[Chunk, None, None]:
        check_options(options)
        question = ask(images, text)
        turn = read_messages([question], allow_paths=options.get("allow_paths", True))
        check_last_turn(turn)
        return self._turn(question, turn, options, stop)

    def _turn(
        self, question: RawMessage, turn: Conversation, options: GenerateOptions, stop: Stop
    ) -> Generator[Chunk, None, None]:
        if not self._answering.acquire(blocking=False):
            raise RequestError("the chat is still answering: read that answer to its end, or close its stream")
        turns, pictures, said = list(self._turns), list[Picture](), list[str]()
        try:
            for chunk in self._chunks(turns, turn, pictures, options, stop):
                said.append(chunk.text)
                yield chunk
        finally:
            if said:
                answer = {"role": "assistant", "content": "".join(said)}
                self._turns = [*turns, _Turn((question, answer), turn + read_messages([answer]), pictures)]
            self._answering.release()

    def _chunks(
        self, turns: list[_Turn], turn: Conversation, pictures: list[Picture], options: GenerateOptions, stop: Stop
    ) -> Generator[Chunk, None, None]:
        """The answer; those of the earlier turns that the context does not hold are taken out of the list.

        Args:
            turns: The earlier ones.
            turn: The question.
            pictures: Gets those of the question.
            options: As `SmolVLM.respond`.
            stop: As `SmolVLM.respond`.
        """
        instruction = read_messages(self._instruction())
        while True:
            conversation = sum((each.conversation for each in turns), instruction) + turn
            earlier = [picture for each in turns for picture in each.pictures]
            read = [*earlier, *pictures]
            try:
                with closing(self._respond(conversation, read, options, stop)) as chunks:
                    for chunk in chunks:
                        pictures[:] = read[len(earlier) :]
                        yield chunk
                return
            except ContextError as error:
                pictures[:] = read[len(earlier) :]
                if not turns:
                    raise
                if self._on_full == "stop":
                    raise ContextError(
                        f"the conversation has become too long ({error}); or forget it (clear(), /clear), "
                        "or its oldest turns (on_full='drop', --on-full drop)"
                    ) from error
                del turns[0]
                logger.warning("the conversation has become too long: its oldest turn is left out")

    def _instruction(self) -> list[RawMessage]:
        return [{"role": "system", "content": self.system}] if self.system else []
