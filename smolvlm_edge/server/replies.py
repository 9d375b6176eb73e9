"""Answers as HTTP: whole ones as JSON, growing ones as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from smolvlm_edge.server.answering import Progress, unless_gone
from smolvlm_edge.server.problems import HttpError, body_of, problem_of

Body = TypeVar("Body", bound=msgspec.Struct)
Event = msgspec.Struct | dict[str, Any] | Progress
"""What a stream sends; progress becomes a comment, which clients skip."""
DONE = b"data: [DONE]\n\n"


async def read(request: Request, type_: type[Body]) -> Body:
    """The body of a request.

    Raises:
        HttpError, msgspec.ValidationError: It is too large, no JSON, or of another form.
    """
    return msgspec.json.decode(await request.body(), type=type_)


def as_json(body: Any, status: int = 200) -> Response:
    """A whole answer."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def whole(request: Request, work: Coroutine[Any, Any, Any]) -> Response:
    """A whole answer, once it is computed; nothing if the client leaves meanwhile, and then the work has ended."""
    body = await unless_gone(request.receive, work)
    return Response(status_code=499) if body is None else as_json(body)


async def streamed(request: Request, events: AsyncGenerator[Event, None]) -> Response:
    """A growing answer. What goes wrong before its first event is answered with a status of its own."""
    first = await unless_gone(request.receive, anext(events))
    if first is None:
        await events.aclose()
        return Response(status_code=499)
    return EventStream(first, events)


class EventStream(Response):
    """Server-sent events, as long as somebody listens."""

    media_type = "text/event-stream"

    def __init__(self, first: Event, events: AsyncGenerator[Event, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first, self._events = first, events

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send them; a client that leaves ends the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> bool:
        async with aclosing(self._events):
            try:
                await _write(send, _frame(self._first))
                async for event in self._events:
                    await _write(send, _frame(event))
                await _write(send, DONE)
            except asyncio.CancelledError:
                with suppress(Exception):
                    await _write(send, _frame_of_error(HttpError("the server is about to stop", 503)))
                raise
            except Exception as error:  # noqa: BLE001 - it is told in the stream
                await _write(send, _frame_of_error(problem_of(error)))
        await send({"type": "http.response.body", "body": b""})
        return True


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _frame(event: Event) -> bytes:
    if isinstance(event, Progress):
        return f": {event}\n\n".encode()
    name = f"event: {event['type']}\n".encode() if isinstance(event, dict) else b""
    return name + b"data: " + msgspec.json.encode(event) + b"\n\n"


def _frame_of_error(problem: HttpError) -> bytes:
    return b"data: " + body_of(problem) + b"\n\n"
