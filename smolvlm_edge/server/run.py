"""The process: sockets, connections that dawdle, and a stop that lets answers end."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from smolvlm_edge.errors import RequestError
from smolvlm_edge.server.app import create_app
from smolvlm_edge.server.residents import Residents
from smolvlm_edge.server.settings import Settings

HEAD_SECONDS = 10.0
"""For the head of a request to arrive; a connection that sends none is closed."""
READER_SECONDS = 60.0
"""For a client to take some of an answer that is more than sockets buffer; it holds its place meanwhile."""


class _Impatient(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever: for the head of a request, and for a client to read."""

    _patience: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().data_received(data)
        if self._patience and self.cycle is not None and not self.cycle.response_complete:
            self._forget()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading:
            self._reading.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        RequestError: The address is none of this machine, or taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise RequestError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error


def run(residents: Residents, settings: Settings, parallel: int, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; answers under way may end first.

    Raises:
        SmolEdgeError: The default model cannot be loaded.
    """
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    options: dict[str, Any] = {"http": _Impatient, "ws": "none", "lifespan": "on", "access_log": False}
    limits = settings.limits
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(residents, settings, parallel, stop),
            **options,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=limits.drain_seconds,
        )
    )
    server.run([listener])
    if failures:
        raise failures[0]


def name_of(model: str, folder: Path) -> str:
    """What requests call a model that was given as a folder: the folder's name."""
    return folder.resolve().name if folder.resolve() == Path(model).resolve() else model
