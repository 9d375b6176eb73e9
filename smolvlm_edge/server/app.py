"""The application: which request goes where, and what happens at its start and end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from smolvlm_edge.server.endpoints import chat, completions, files, responses, state, tokens
from smolvlm_edge.server.guards import Guards
from smolvlm_edge.server.openapi import Endpoint, serve
from smolvlm_edge.server.problems import handle, problem_of, response_of
from smolvlm_edge.server.protocol.chat import ChatCompletion, ChatCompletionChunk, ChatRequest
from smolvlm_edge.server.protocol.completions import Completion, CompletionRequest
from smolvlm_edge.server.protocol.responses import ResponseBody, ResponsesRequest
from smolvlm_edge.server.protocol.state import Deleted, FileObject, Files, Health, Model, Models
from smolvlm_edge.server.protocol.tokens import DetokenizeRequest, Text, TokenCount, TokenizeRequest, Tokens
from smolvlm_edge.server.residents import Residents
from smolvlm_edge.server.service import Service, service_of
from smolvlm_edge.server.settings import Settings

PAGE = Path(__file__).parent / "page"
PAGE_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}
SITE_POLICY = {  # isolated from other sites, which WebAssembly's threads need
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
ENDPOINTS = (
    Endpoint(
        "POST",
        ("/v1/chat/completions", "/chat/completions"),
        chat.chat_completions,
        ChatRequest,
        ChatCompletion,
        ChatCompletionChunk,
    ),
    Endpoint("POST", ("/v1/chat/completions/input_tokens",), tokens.count_chat, ChatRequest, TokenCount),
    Endpoint("POST", ("/v1/responses",), responses.responses, ResponsesRequest, ResponseBody, dict[str, Any]),
    Endpoint("POST", ("/v1/responses/input_tokens",), tokens.count_responses, ResponsesRequest, TokenCount),
    Endpoint(
        "POST", ("/v1/completions", "/completions"), completions.completions, CompletionRequest, Completion, Completion
    ),
    Endpoint("POST", ("/tokenize",), tokens.tokenize, TokenizeRequest, Tokens),
    Endpoint("POST", ("/detokenize",), tokens.detokenize, DetokenizeRequest, Text),
    Endpoint("POST", ("/v1/files",), files.upload, None, FileObject, uploads=True),
    Endpoint("GET", ("/v1/files",), files.files, None, Files),
    Endpoint("GET", ("/v1/files/{id}",), files.file, None, FileObject),
    Endpoint("DELETE", ("/v1/files/{id}",), files.delete, None, Deleted),
    Endpoint("GET", ("/v1/models", "/models"), state.models, None, Models),
    Endpoint("GET", ("/v1/models/{id:path}",), state.model, None, Model),
    Endpoint("GET", ("/health", "/v1/health"), state.health, None, Health),
    Endpoint("GET", ("/metrics",), state.metrics),
)


def create_app(
    residents: Residents,
    settings: Settings | None = None,
    parallel: int = 1,
    on_failure: Callable[[Exception], None] | None = None,
) -> Starlette:
    """The application.

    Args:
        residents: Its models.
        settings: Who may ask, and how much.
        parallel: How many requests a model answers at once.
        on_failure: Told if the default model cannot be loaded.
    """
    settings = settings or Settings()
    service = Service.of(residents, settings, parallel)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        tasks = [asyncio.ensure_future(_load(service, on_failure)), asyncio.ensure_future(residents.unload_idle())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            service.answering.close()
            residents.close()

    routes = [
        Route(path, _answered(path, endpoint.handler), methods=[endpoint.method])
        for endpoint in (*ENDPOINTS, serve(ENDPOINTS))
        for path in endpoint.paths
    ]
    app = Starlette(
        routes=[*routes, Route("/", _index), Mount("/page", _Folder(PAGE, PAGE_POLICY)), *_site(settings.site)],
        middleware=[Middleware(Guards, settings=settings)],
        exception_handlers={HTTPException: handle},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


async def _load(service: Service, on_failure: Callable[[Exception], None] | None) -> None:
    try:
        async with service.residents.use(service.residents.named(None)):
            service.loaded = True
    except Exception as error:
        if on_failure is None:
            raise
        on_failure(error)


def _answered(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors are answered, and whose answers are counted."""

    async def answered(request: Request) -> Response:
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told of it
            response = response_of(problem_of(error))
        service_of(request).metrics.requests.labels(path, str(response.status_code)).inc()
        return response

    return answered


class _Folder(StaticFiles):
    """A folder's files, with the rules by which a browser keeps to them."""

    def __init__(self, directory: Path, policy: dict[str, str], *, html: bool = False) -> None:
        super().__init__(directory=directory, html=html)
        self._policy = policy

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(self._policy)
        return response


def _site(folder: Path | None) -> list[Mount]:
    return [Mount("/site", _Folder(folder, SITE_POLICY, html=True))] if folder else []


async def _index(_: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers=PAGE_POLICY)
