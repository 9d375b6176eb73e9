"""What several dialects share: wishes about the answer, and its cost."""

import time
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from smolvlm_edge.constraints import OnLimit
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.server.problems import HttpError

EVERYTHING = 1 << 30
"""A longest answer that the model's context bounds."""
SAME_NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "regex",
    "choices",
    "on_limit",
    "skip_special_tokens",
)
"""Wishes that `GenerateOptions` has under the same name."""


class Wishes(msgspec.Struct, kw_only=True):
    """What may be wished of an answer, in every dialect."""

    model: str | None = None
    """A name of /v1/models; by default the server's first."""
    stream: bool | None = None
    temperature: float | None = None
    """0, the default, always takes the likeliest token."""
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    """Token ids as texts, and what is added to their logits, -100 to 100."""
    seed: int | None = None
    """Below 0 as without one: drawn."""
    stop: str | list[str] | None = None
    regex: str | None = None
    """Extension: the whole answer is to match."""
    choices: list[str] | None = None
    """Extension: the answer is to be one of these."""
    on_limit: OnLimit | None = None
    """Extension: `complete` brings an answer of a given form to a valid end before the longest answer cuts it off."""
    skip_special_tokens: bool | None = None
    n: int | None = None

    def options(self, max_tokens: int | None) -> GenerateOptions:
        """As keywords of `SmolVLM.stream`.

        Raises:
            HttpError: Something is wished that this server does not do.
        """
        if self.n is not None and self.n != 1:
            raise HttpError("n must be 1: this server gives one answer to a request", param="n")
        options: dict[str, Any] = {name: value for name in SAME_NAMES if (value := getattr(self, name)) is not None}
        if self.seed is not None and self.seed >= 0:
            options["seed"] = self.seed
        if max_tokens is not None:
            options["max_tokens"] = max_tokens if max_tokens >= 0 else EVERYTHING
        if self.logit_bias:
            options["logit_bias"] = _logit_bias(self.logit_bias)
        return GenerateOptions(**options)  # type: ignore[typeddict-item]


def _logit_bias(wanted: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in wanted.items()}
    except ValueError:
        raise HttpError("logit_bias must have token ids as keys: POST /tokenize", param="logit_bias") from None


class StreamOptions(msgspec.Struct):
    """What a stream is to hold besides."""

    include_usage: bool | None = None


class PromptTokensDetails(msgspec.Struct):
    """Of which kind the tokens of a prompt are."""

    cached_tokens: int = 0
    image_tokens: int = 0
    text_tokens: int = 0


class Usage(msgspec.Struct):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, timings: Timings, image_seq_len: int) -> "Usage":
        """Counted from the cost of an answer."""
        read, written, image = timings.prompt_tokens, timings.generated_tokens, timings.tiles * image_seq_len
        return cls(read, written, read + written, PromptTokensDetails(timings.cached_tokens, image, read - image))


class Speed(msgspec.Struct):
    """llama-server's `timings`, and after them this server's own phases. Times are milliseconds."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    """From the pictures' first tile to the first token."""
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    load_ms: float
    preprocess_ms: float
    vision_ms: float
    prefill_ms: float
    ttft_ms: float
    constraint_ms: float
    tiles: int
    encoded_tiles: int

    @classmethod
    def of(cls, timings: Timings) -> "Speed":
        """Counted from the cost of an answer."""
        read, written = timings.prompt_tokens - timings.cached_tokens, timings.generated_tokens
        prompt_ms, rate = timings.vision_ms + timings.prefill_ms, timings.decode_tokens_per_s
        return cls(
            cache_n=timings.cached_tokens,
            prompt_n=read,
            prompt_ms=round(prompt_ms, 3),
            prompt_per_token_ms=round(prompt_ms / read, 3) if read else 0.0,
            prompt_per_second=round(1000 * read / prompt_ms, 3) if prompt_ms else 0.0,
            predicted_n=written,
            predicted_ms=round(1000 * (written - 1) / rate, 3) if rate else 0.0,
            predicted_per_token_ms=round(1000 / rate, 3) if rate else 0.0,
            predicted_per_second=round(rate, 3),
            load_ms=round(timings.load_ms, 3),
            preprocess_ms=round(timings.preprocess_ms, 3),
            vision_ms=round(timings.vision_ms, 3),
            prefill_ms=round(timings.prefill_ms, 3),
            ttft_ms=round(timings.ttft_ms, 3),
            constraint_ms=round(timings.constraint_ms, 3),
            tiles=timings.tiles,
            encoded_tiles=timings.encoded_tiles,
        )


class JsonSchema(msgspec.Struct):
    """A JSON Schema, with the name that clients give it. It is always kept to, strict or not."""

    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    """llama-server's place for a schema, beside json_object."""


def schema_of(format_: ResponseFormat | None) -> dict[str, Any] | None:
    """The JSON Schema that a form means.

    Raises:
        HttpError: There is none.
    """
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return format_.schema or {"type": "object"}
    schema = format_.json_schema.schema if format_.json_schema else format_.schema
    if schema is None:
        raise HttpError("a response_format of type json_schema needs a schema", param="response_format.json_schema")
    return schema


def refuse_tools(tools: Any, tool_choice: Any, functions: Any) -> None:
    """Refuse what the models of this family were not trained for.

    Raises:
        HttpError: A tool may be called.
    """
    name = "tools" if tools else "functions" if functions else None
    if name and tool_choice != "none":
        raise HttpError("this server calls no tools: leave them out, or set tool_choice to 'none'", param=name)


def new_id(prefix: str) -> str:
    """A name for an answer that no other has."""
    return prefix + uuid.uuid4().hex


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
