"""A plug-in of Simon Willison's `llm`: `llm -m smol-edge/demo -a photo.jpg describe`.

Tried with llm 0.36, whose `docs/plugins/advanced-model-plugins.md` describes what a plug-in of a model is.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import llm
from llm.parts import AttachmentPart, TextPart, ToolResultPart
from pydantic import Field

from smolvlm_edge import Chunk, LocalModel, SmolVLM, local_models

if TYPE_CHECKING:
    from llm.models import AsyncConversation, AsyncResponse, Conversation, Prompt, Response

PICTURES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff"})


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Every bundle on this machine that goes by a name, the demonstration model among them."""
    for local in local_models():
        register(SmolEdge(local), AsyncSmolEdge(local))


class Options(llm.Options):
    """What `-o NAME VALUE` takes; see `smolvlm_edge.GenerateOptions`."""

    max_tokens: int | None = Field(default=None, description="Longest answer, in tokens")
    temperature: float | None = Field(default=None, description="0, the default, always takes the likeliest token")
    top_k: int | None = Field(default=None, description="Keep so many of the likeliest tokens")
    top_p: float | None = Field(default=None, description="Keep the likeliest tokens that together reach this")
    min_p: float | None = Field(default=None, description="Keep tokens with this share of the likeliest one's")
    repetition_penalty: float | None = Field(default=None, description="Above 1 makes repeated tokens less likely")
    seed: int | None = Field(default=None, description="The same seed gives the same answer")
    stop: str | None = Field(default=None, description="A text that ends the answer")
    regex: str | None = Field(default=None, description="A regular expression that the answer is to match")
    detail: str | None = Field(default=None, description="Tiles to spend on a picture: low, auto or high")
    timeout: float | None = Field(default=None, description="Seconds after which an answer is given up")


class _Shared:
    """What both models have in common: names, and how a prompt of theirs becomes ours."""

    can_stream = True
    supports_schema = True
    attachment_types = PICTURES

    class Options(Options):
        """As above; llm looks for the class here."""

    def __init__(self, local: LocalModel) -> None:
        self.model_id = f"smol-edge/{local.name}"
        self._local = local

    def __str__(self) -> str:
        return f"smol-edge: {self.model_id}"

    def request(self, prompt: "Prompt", stream: bool) -> dict[str, Any]:
        """Keywords of `SmolVLM.stream`."""
        del stream  # an answer that is not shown piece by piece is the join of its pieces
        options = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
        if prompt.schema:
            options["schema"] = prompt.schema
        return {"messages": list(_messages(prompt)), **options}


class SmolEdge(_Shared, llm.Model):
    """A bundle, in llm's ordinary programs."""

    def execute(
        self, prompt: "Prompt", stream: bool, response: "Response", conversation: "Conversation | None"
    ) -> Iterator[str]:
        """The answer, piece by piece."""
        del conversation  # `prompt.messages` holds all of it
        for chunk in _opened(self._local).stream(**self.request(prompt, stream)):
            _tell_usage(response, chunk)
            yield chunk.text


class AsyncSmolEdge(_Shared, llm.AsyncModel):
    """A bundle, in programs with an event loop."""

    async def execute(
        self, prompt: "Prompt", stream: bool, response: "AsyncResponse", conversation: "AsyncConversation | None"
    ) -> AsyncGenerator[str, None]:
        """The answer, piece by piece."""
        del conversation
        async for chunk in _opened(self._local).astream(**self.request(prompt, stream)):
            _tell_usage(response, chunk)
            yield chunk.text


@cache
def _opened(local: LocalModel) -> SmolVLM:
    """Opened once: `llm chat` asks many questions in one process."""
    return SmolVLM.load(local.folder, offline=True)


def _messages(prompt: "Prompt") -> Iterator[dict[str, Any]]:
    """The conversation in the form that `SmolVLM.stream` takes: all turns, with their pictures."""
    for message in prompt.messages:
        parts = []
        for part in message.parts:
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, ToolResultPart):
                parts.append({"type": "text", "text": part.output})
            elif isinstance(part, AttachmentPart) and part.attachment:
                parts.append({"type": "image", "image": part.attachment.content_bytes()})
        # pictures come before the question, as in what the family was trained with
        parts.sort(key=lambda part: part["type"] == "text")
        yield {"role": "user" if message.role == "tool" else message.role, "content": parts}


def _tell_usage(response: "Response | AsyncResponse", chunk: Chunk) -> None:
    if chunk.finish_reason:
        cost = chunk.timings
        details = {"cached_tokens": cost.cached_tokens, "tiles": cost.tiles}
        response.set_usage(input=cost.prompt_tokens, output=cost.generated_tokens, details=details)
