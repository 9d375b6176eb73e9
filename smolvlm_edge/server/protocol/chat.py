"""POST /v1/chat/completions."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from smolvlm_edge.generation.answer import FinishReason, GenerateOptions
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.common import (
    ResponseFormat,
    Speed,
    StreamOptions,
    Usage,
    Wishes,
    refuse_tools,
    schema_of,
)
from smolvlm_edge.server.protocol.parts import Message


class ChatRequest(Wishes, kw_only=True):
    """A conversation to answer; one that ends with the assistant's turn is continued."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    """Longest answer; 512 by default, below 0 what the context holds."""
    max_tokens: int | None = None
    """The same, by its older name."""
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = None
    """llama-server's short way to a schema."""
    grammar: str | None = None
    continue_final_message: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None

    def generate_options(self) -> GenerateOptions:
        """As keywords of `SmolVLM.stream`.

        Raises:
            HttpError: Something is wished that this server does not do, or that contradicts itself.
        """
        refuse_tools(self.tools, self.tool_choice, self.functions)
        if self.grammar:
            raise HttpError("grammars are not read: use regex, choices or response_format", param="grammar")
        if self.modalities and set(self.modalities) != {"text"}:
            raise HttpError("answers are text: set modalities to ['text']", param="modalities")
        if self.top_logprobs is not None and not self.logprobs:
            raise HttpError("top_logprobs needs logprobs: true", param="top_logprobs")
        last = self.messages[-1].role if self.messages else None
        if self.continue_final_message and last != "assistant":
            raise HttpError("there is no assistant's turn at the end to continue", param="continue_final_message")
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        options = self.options(limit)
        if schema := self.json_schema or schema_of(self.response_format):
            options["schema"] = schema
        if self.logprobs:
            options["top_logprobs"] = self.top_logprobs or 0
        return options


class TopLogprob(msgspec.Struct):
    """How likely a token was."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct):
    """How likely a token of the answer was, and the likeliest ones."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(msgspec.Struct):
    """How likely the tokens of an answer were."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(msgspec.Struct):
    """The answer."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct):
    """The answer, and why it ended."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(msgspec.Struct, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Speed
    system_fingerprint: str


class Delta(msgspec.Struct):
    """What an answer grows by."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    """What an answer grows by, and at its end why it ended."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Speed | UnsetType = UNSET
    system_fingerprint: str
