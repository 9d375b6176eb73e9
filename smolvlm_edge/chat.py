"""A conversation of several turns."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import Any, Unpack

from smolvlm_edge.conversation.messages import Conversation, RawMessage, Source, ask, check_last_turn, read_messages
from smolvlm_edge.errors import RequestError
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions, check_options
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.pictures.video import Picture

Respond = Callable[[Conversation, list[Picture], GenerateOptions, Stop], Generator[Chunk, None, None]]
"""`SmolVLM.respond`."""
Text = str | Sequence[Mapping[str, Any]]


class Chat:
    """A conversation: every question is asked with all that was said and shown before. Made by `SmolVLM.chat`.

    What the model computed for the turns so far is used again, unless another question to the model came in between;
    the answers are those of `SmolVLM.generate(messages=chat.messages)` to the last token, either way. A picture is read
    once, when its turn comes; its file may be gone afterwards.
    """

    def __init__(self, respond: Respond, system: str | None, options: GenerateOptions) -> None:
        """Use `SmolVLM.chat`."""
        self.system = system
        """What the model is told before the first turn; may be changed between turns."""
        self._respond, self._options = respond, options
        self._messages: list[RawMessage] = []
        self._conversation = Conversation()
        self._pictures: list[Picture] = []
        self._answering = Lock()

    @property
    def messages(self) -> list[RawMessage]:
        """The conversation so far, the system's text first, in the form that `SmolVLM.generate` takes."""
        return [*self._instruction(), *self._messages]

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
        self._messages, self._conversation, self._pictures = [], Conversation(), []

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
        pictures, said = list(self._pictures), list[str]()
        conversation = self._conversation + turn
        try:
            with closing(
                self._respond(read_messages(self._instruction()) + conversation, pictures, options, stop)
            ) as chunks:
                for chunk in chunks:
                    said.append(chunk.text)
                    yield chunk
        finally:
            if said:
                answer = {"role": "assistant", "content": "".join(said)}
                self._messages += [question, answer]
                self._conversation = conversation + read_messages([answer])
                self._pictures = pictures
            self._answering.release()

    def _instruction(self) -> list[RawMessage]:
        return [{"role": "system", "content": self.system}] if self.system else []
