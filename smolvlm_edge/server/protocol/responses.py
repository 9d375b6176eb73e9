"""POST /v1/responses, without memory: every request carries its whole conversation."""

from typing import Any, Literal

import msgspec

from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.common import JsonSchema, ResponseFormat, Usage, Wishes, refuse_tools, schema_of
from smolvlm_edge.server.protocol.parts import Message, Part


class InputMessage(msgspec.Struct):
    """A turn of the conversation, or an item of an earlier response."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None


class TextFormat(msgspec.Struct):
    """The form of the answer; a schema stands here without a level of its own."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextWishes(msgspec.Struct):
    """What the answer's text is to be."""

    format: TextFormat | None = None


class ResponsesRequest(Wishes, kw_only=True):
    """A text or a conversation to answer."""

    input: str | list[InputMessage]
    instructions: str | None = None
    max_output_tokens: int | None = None
    text: TextWishes | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None

    def messages(self) -> list[Message]:
        """The conversation as /v1/chat/completions has it.

        Raises:
            HttpError: An item is none of a conversation, or the server would have to remember one.
        """
        for name in ("previous_response_id", "conversation"):
            if getattr(self, name):
                raise HttpError("this server remembers no conversation: send all of it as input", param=name)
        messages = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*messages, Message("user", self.input)]
        for index, item in enumerate(self.input):
            if item.type == "reasoning":
                continue
            if item.type != "message" or item.role is None:
                raise HttpError("an item of input must be a message with a role", param=f"input[{index}]")
            messages.append(Message(item.role, item.content))
        return messages

    def generate_options(self) -> GenerateOptions:
        """As keywords of `SmolVLM.stream`.

        Raises:
            HttpError: Something is wished that this server does not do.
        """
        refuse_tools(self.tools, self.tool_choice, None)
        if self.background:
            raise HttpError("answers are given at once: leave background out", param="background")
        options = self.options(self.max_output_tokens)
        if self.text and (wanted := self.text.format):
            format_ = ResponseFormat(wanted.type, JsonSchema(wanted.name, wanted.schema), wanted.schema)
            if schema := schema_of(format_):
                options["schema"] = schema
        return options


class OutputText(msgspec.Struct, kw_only=True):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(msgspec.Struct, kw_only=True):
    """The answer."""

    type: Literal["message"] = "message"
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class InputTokensDetails(msgspec.Struct):
    """Of which kind the tokens that were read are."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    image_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    """Of which kind the tokens that were written are."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """Tokens that were read and written."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> "ResponseUsage":
        """The same by other names."""
        details = usage.prompt_tokens_details
        return cls(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            InputTokensDetails(details.cached_tokens, 0, details.image_tokens),
            OutputTokensDetails(),
        )


class IncompleteDetails(msgspec.Struct):
    """Why an answer is not complete."""

    reason: Literal["max_output_tokens"]


class ResponseBody(msgspec.Struct, kw_only=True):
    """A response, under way or done."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None = None
    error: dict[str, Any] | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextWishes | None = None
    parallel_tool_calls: bool = False
    tool_choice: str = "none"
    tools: list[Any] = []
    store: bool = False
    metadata: dict[str, str] = {}
