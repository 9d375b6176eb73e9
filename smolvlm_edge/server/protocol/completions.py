"""POST /v1/completions, for base models."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from smolvlm_edge.generation.answer import FinishReason, GenerateOptions
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.common import Speed, StreamOptions, Usage, Wishes


class CompletionRequest(Wishes, kw_only=True):
    """A text to go on with."""

    prompt: str | list[str]
    """One text, or a list of one."""
    images: list[str] | None = None
    """Extension: pictures that stand before the text, as URLs."""
    max_tokens: int | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None

    def text(self) -> str:
        """The one prompt.

        Raises:
            HttpError: There are several.
        """
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) != 1:
            raise HttpError("prompt must be one text: send a request for each", param="prompt")
        return self.prompt[0]

    def generate_options(self) -> GenerateOptions:
        """As keywords of `SmolVLM.stream`.

        Raises:
            HttpError: Something is wished that this server does not do.
        """
        if self.suffix:
            raise HttpError("suffix is not supported: these models write on, not in between", param="suffix")
        if self.echo:
            raise HttpError("echo is not supported: put the prompt before the answer yourself", param="echo")
        if self.best_of is not None and self.best_of != 1:
            raise HttpError("best_of must be 1: this server gives one answer to a request", param="best_of")
        return self.options(self.max_tokens)


class CompletionChoice(msgspec.Struct):
    """What follows, or a piece of it."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: None = None


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer, or an event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Speed | UnsetType = UNSET
    system_fingerprint: str
