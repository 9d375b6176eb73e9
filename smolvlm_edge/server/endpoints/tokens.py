"""POST /tokenize, /detokenize, and how many tokens a conversation with its pictures takes."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.conversation.messages import RawMessage
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.server.pieces import token_bytes
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.chat import ChatRequest
from smolvlm_edge.server.protocol.responses import ResponsesRequest
from smolvlm_edge.server.protocol.tokens import (
    DetokenizeRequest,
    Grid,
    PieceOfText,
    Text,
    TokenCount,
    TokenizeRequest,
    Tokens,
)
from smolvlm_edge.server.replies import as_json, read
from smolvlm_edge.server.service import Service, service_of


async def tokenize(request: Request) -> Response:
    """Token ids of a text."""
    service = service_of(request)
    body = await read(request, TokenizeRequest)
    if len(body.content) > service.settings.limits.text_chars:
        raise HttpError(f"a text may have {service.settings.limits.text_chars:,} characters", param="content")
    async with service.residents.use(service.ready(body.model)) as model:
        tokenizer = model.prompt_encoder.tokenizer
        encoding = await asyncio.to_thread(tokenizer.encode, body.content, add_special_tokens=body.add_special)
    if not body.with_pieces:
        return as_json(Tokens(encoding.ids))
    return as_json(Tokens([PieceOfText(id_, _piece(token_bytes(tokenizer, id_))) for id_ in encoding.ids]))


async def detokenize(request: Request) -> Response:
    """The text that token ids stand for."""
    service = service_of(request)
    body = await read(request, DetokenizeRequest)
    async with service.residents.use(service.ready(body.model)) as model:
        encoder = model.prompt_encoder
        size = encoder.tokenizer.get_vocab_size()
        if wrong := next((id_ for id_ in body.tokens if not 0 <= id_ < size), None):
            raise HttpError(f"there is no token {wrong}: the model has {size:,}", param="tokens")
        return as_json(Text(encoder.tokenizer.decode(body.tokens, skip_special_tokens=False)))


async def count_chat(request: Request) -> Response:
    """Tokens of a conversation, as /v1/chat/completions takes it."""
    service = service_of(request)
    body = await read(request, ChatRequest)
    return await _count(service, body.model, await service.sources.messages(body.messages))


async def count_responses(request: Request) -> Response:
    """Tokens of a conversation, as /v1/responses takes it."""
    service = service_of(request)
    body = await read(request, ResponsesRequest)
    return await _count(service, body.model, await service.sources.messages(body.messages()))


async def _count(service: Service, name: str | None, messages: list[RawMessage]) -> Response:
    async with service.residents.use(service.ready(name)) as model, service.counting:
        return as_json(await asyncio.to_thread(_measure, model, messages))


def _measure(model: SmolVLM, messages: list[RawMessage]) -> TokenCount:
    size = model.measure(messages=messages)
    return TokenCount(
        input_tokens=size.tokens,
        image_tokens=size.image_tokens,
        context=size.context,
        pictures=[Grid(rows, columns, rows * columns + 1) for rows, columns in size.grids],
    )


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
