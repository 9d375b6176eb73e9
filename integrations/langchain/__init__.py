"""A chat model for LangChain, in its own process: no server stands between.

    from smolvlm_edge.integrations.langchain import ChatSmolEdge
    ChatSmolEdge(model="smolvlm-256m").invoke([HumanMessage([
        {"type": "image", "base64": data, "mime_type": "image/jpeg"}, {"type": "text", "text": "What is this?"}])])

Tried with langchain-core 1.8, and with its own tests of chat models (langchain-tests 1.1).
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cache
from threading import Lock
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel, agenerate_from_stream
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import Field

from smolvlm_edge import Answer, Chunk, RequestError, SmolVLM

PROVIDER = "smol-edge"


class ChatSmolEdge(BaseChatModel):
    """Answers about pictures and videos in LangChain's chains.

    Further options of `smolvlm_edge.GenerateOptions`, such as `regex` or `longest_edge`, are for `bind` and `invoke`.
    """

    model: str = "demo"
    """As `SmolVLM.load` takes it: a bundle's folder or a name. An `invoke(..., model=...)` may say another one."""
    load_options: dict[str, Any] = Field(default_factory=dict)
    """Further keywords of `SmolVLM.load`, such as `{"quant": "int8", "offline": True, "parallel": 4}`."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    detail: str | None = None
    timeout: float | None = None
    on_limit: str | None = None
    allow_paths: bool = False
    """Whether the URL of a picture may be a path or a file: URL: messages may be those of strangers."""

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "load_options": self.load_options, **self._options(None, {})}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._options(stop, {})
        params = LangSmithParams(
            ls_provider=PROVIDER, ls_model_name=kwargs.get("model", self.model), ls_model_type="chat"
        )
        for name in ("temperature", "max_tokens", "stop"):
            if name in options:
                params[f"ls_{name}"] = options[name]  # type: ignore[literal-required]
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager  # which wants to know of tokens, and here they come all at once
        name = kwargs.pop("model", self.model)
        answer = self._opened(name).generate(messages=_messages(messages), **self._options(stop, kwargs))
        told = _told(answer, name)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer.text, **told), generation_info={})])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # cancelling a task that waits for this ends the answer; a thread would compute it to its end
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        name = kwargs.pop("model", self.model)
        for piece in self._opened(name).stream(messages=_messages(messages), **self._options(stop, kwargs)):
            chunk = _chunk(piece, name)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        name = kwargs.pop("model", self.model)
        model = self._opened(name)
        async for piece in model.astream(messages=_messages(messages), **self._options(stop, kwargs)):
            chunk = _chunk(piece, name)
            if run_manager:
                await run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers that fulfil a schema (extra [json], which comes along), whatever the model would rather say.

        Args:
            schema: A Pydantic class, of which objects come back; or a TypedDict, a JSON Schema or a function in
                OpenAI's form, and dicts come back. The model is not told of it: say in the prompt what is wanted.
                Objects have the properties that are named and no other, unless `additionalProperties` says so.
            include_raw: Give `{"raw": the message, "parsed": ..., "parsing_error": ...}`.
            **kwargs: Options of the answer, such as `max_tokens` or `on_limit="complete"`. `method` and `strict` are
                those of services, and say nothing here.
        """
        for name in ("method", "strict"):
            kwargs.pop(name, None)
        wanted = _closed(convert_to_json_schema(schema))
        format_ = {"kwargs": {"method": "json_schema"}, "schema": schema}
        model = self.bind(schema=wanted, ls_structured_output_format=format_, **kwargs)
        is_pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Any = PydanticOutputParser(pydantic_object=schema) if is_pydantic else JsonOutputParser()
        if not include_raw:
            return model | parser
        raw = RunnableLambda(lambda both: both["raw"])
        parsed = RunnablePassthrough.assign(parsed=raw | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def _options(self, stop: list[str] | None, further: Mapping[str, Any]) -> dict[str, Any]:
        names = ("max_tokens", "temperature", "top_k", "top_p", "seed", "detail", "timeout", "on_limit", "allow_paths")
        own = {name: getattr(self, name) for name in names} | {"stop": stop or self.stop}
        return {name: value for name, value in {**own, **further}.items() if value is not None}

    def _opened(self, name: str) -> SmolVLM:
        with _loading:
            return _open(name, json.dumps(self.load_options, sort_keys=True))


_loading = Lock()  # chains ask from many threads


@cache
def _open(name: str, options: str) -> SmolVLM:
    """Opened once: chains copy their models, and each copy would load its own."""
    return SmolVLM.load(name, **json.loads(options))


def _closed(schema: Any) -> Any:
    """A schema whose objects have no properties but those it names; a small model thinks of many others."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if isinstance(schema.get("properties"), dict) else inner


def _messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The conversation in the form that `SmolVLM.generate` takes."""
    return [{"role": _role(message), "content": _content(message)} for message in messages]


def _role(message: BaseMessage) -> str:
    match message:
        case ChatMessage():
            return message.role
        case SystemMessage():
            return "system"
        case AIMessage():
            return "assistant"
        case ToolMessage() | FunctionMessage():
            return "tool"
        case _:
            return "user"


def _content(message: BaseMessage) -> Any:
    if isinstance(message, AIMessage):
        return str(message.text)  # what a model thought or called is not for this one
    return message.content if isinstance(message.content, str) else [_part(block) for block in message.content]


def _part(block: str | dict[Any, Any]) -> dict[str, Any]:
    """A block of LangChain's own, or of OpenAI's, which is read as it is."""
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind not in {"image", "video"}:
        return block
    if isinstance(data := block.get("base64"), str):
        return {"type": kind, kind: f"data:{block.get('mime_type') or 'image/*'};base64,{data}"}
    if isinstance(url := block.get("url"), str):
        return {"type": kind, kind: url}
    raise RequestError(f"a block of type {kind} needs base64 or a data: URL; no service keeps files here")


def _chunk(piece: Chunk, name: str) -> ChatGenerationChunk:
    if piece.finish_reason is None:
        return ChatGenerationChunk(message=AIMessageChunk(piece.text))
    return ChatGenerationChunk(message=AIMessageChunk(piece.text, chunk_position="last", **_told(piece, name)))


def _told(said: Answer | Chunk, name: str) -> dict[str, Any]:
    """How an answer ended, and what it cost."""
    cost = said.timings
    usage = UsageMetadata(
        input_tokens=cost.prompt_tokens,
        output_tokens=cost.generated_tokens,
        total_tokens=cost.prompt_tokens + cost.generated_tokens,
        input_token_details={"cache_read": cost.cached_tokens},
    )
    metadata = {"model_name": name, "model_provider": PROVIDER, "finish_reason": said.finish_reason}
    return {"usage_metadata": usage, "response_metadata": metadata}
