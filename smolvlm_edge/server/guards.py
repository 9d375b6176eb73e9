"""Who may ask, and how much may be sent: checked before anything of a request is looked at.

- Host: a website whose name was made to point at this machine (DNS rebinding) is not answered.
- Origin: scripts of websites are answered only if they are of this machine, or were allowed.
- Keys: compared in constant time.
- Bodies: counted while they arrive, one by one and all together.
"""

import asyncio
import hmac
import ipaddress
import logging
import socket
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smolvlm_edge.server.problems import HttpError, busy, response_of
from smolvlm_edge.server.settings import Settings

logger = logging.getLogger(__name__)

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PUBLIC = frozenset({"/", "/favicon.ico", "/health", "/v1/health"})
"""What is given without a key; and files below FILES, for which a browser sends none."""
FILES = ("/page/", "/site/")
SECURE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Guards:
    """Stands before the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings, self._limits = app, settings, settings.limits
        self._keys = [_digest(key) for key in settings.api_keys]
        self._origins = {origin.lower().rstrip("/") for origin in settings.origins}
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, f"{own}.local", *(name.lower() for name in settings.hosts)}
        self._held = 0
        """Bytes of all bodies under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        extra = dict(SECURE)
        body = _Body(receive, self)
        try:
            self._check_host(headers)
            if origin := headers.get("origin"):
                self._check_origin(origin, headers["host"])
                extra |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
                if scope["method"] == "OPTIONS":
                    await Response(status_code=204, headers=extra | _preflight(headers))(scope, receive, send)
                    return
            if scope["path"] not in PUBLIC and not scope["path"].startswith(FILES):
                self._check_key(headers)
            self._check_body(headers)
        except HttpError as problem:
            await response_of(problem)(scope, receive, _with_headers(send, extra))
            return
        try:
            await self._app(scope, body.receive, _with_headers(send, extra))
        finally:
            self._held -= body.received

    def hold(self, received: int, more: int) -> None:
        """Count what arrived of a body of which there was so much before.

        Raises:
            HttpError: It is too large, or there is too much of all of them.
        """
        self._held += more
        if received + more > self._limits.body_bytes:
            raise self._too_large()
        if self._held > self._limits.bodies_bytes:
            raise busy("there are too many large requests under way: ask again later", 503)

    @property
    def body_seconds(self) -> float:
        """How long a body may take to arrive."""
        return self._limits.body_seconds

    def _check_host(self, headers: Headers) -> None:
        """An address cannot be rebound, and whoever has a key is no website."""
        name = _host_name(headers.get("host", ""))
        if self._keys or name in self._hosts or name.endswith(".localhost") or _is_address(name):
            return
        raise HttpError(
            f"this server does not go by the name {name[:80]!r}: if it does, start it with --allow-host and that name",
            403,
        )

    def _check_origin(self, origin: str, host: str) -> None:
        lower = origin.lower()
        if lower in self._origins or "*" in self._origins:
            return
        if lower in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return  # the server's own page; Host is one of its names
        if lower != "null" and _origin_name(lower) in OWN_NAMES:
            return
        what = "a page opened from disk, or a frame of any website" if lower == "null" else "a website"
        logger.warning("refused the origin %s (%s); --cors %s lets it ask", origin[:80], what, origin[:80])
        raise HttpError(f"scripts of {origin[:80]} may not ask: --cors {origin[:80]} would allow them", 403)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = _digest(token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        if not any([hmac.compare_digest(given, key) for key in self._keys]):  # noqa: C419 - as long, whichever matches
            raise HttpError(
                "a valid API key is needed: Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_body(self, headers: Headers) -> None:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpError("compressed bodies are not read", 415, headers={"Accept-Encoding": "identity"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> HttpError:
        most = self._limits.body_bytes >> 20
        return HttpError(f"a request may have {most} MB: send smaller pictures", 413, headers={"Connection": "close"})


class _Body:
    """What arrives of one request."""

    def __init__(self, receive: Receive, guards: Guards) -> None:
        self._receive, self._guards = receive, guards
        self._arrived = False
        self._end: float | None = None
        self.received = 0

    async def receive(self) -> Message:
        """The next message; the body's are counted, and timed together."""
        if self._arrived:
            return await self._receive()
        if self._end is None:
            self._end = asyncio.get_running_loop().time() + self._guards.body_seconds
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise HttpError("the request did not arrive in time", 408, headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._arrived = not message.get("more_body", False)
            more = len(message.get("body", b""))
            try:
                self._guards.hold(self.received, more)
            finally:
                self.received += more
        return message


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host_name(host: str) -> str:
    """A Host header without port and brackets."""
    name = host.lower().rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.lower().partition(":")[0]
    return name.removesuffix(".")


def _origin_name(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
        return parts.hostname if parts.scheme in ("http", "https") and not parts.username else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _preflight(headers: Headers) -> dict[str, str]:
    answer = {
        "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "*"),
        "Access-Control-Max-Age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return answer


def _with_headers(send: Send, extra: dict[str, str]) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in extra.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped
