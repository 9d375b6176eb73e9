"""What goes wrong -> a status and a body as OpenAI words them: `{"error": {"message", "type", "param", "code"}}`."""

import logging
import re
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.errors import ContextError, SmolEdgeError

logger = logging.getLogger(__name__)

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "stopped_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
"""By status, in the words of OpenAI and llama-server; every other one below 500 is an invalid_request_error."""
RETRY_AFTER_S = 2
PLACE = re.compile(r" - at `\$(?:\.|(?=\[))?(?P<place>[^`]+)`$")
"""How msgspec says where in a body something is wrong."""


class ErrorDetails(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    """The field of the body that is meant."""
    code: str | None = None


class ErrorBody(msgspec.Struct):
    """The body of every answer that is an error."""

    error: ErrorDetails


class HttpError(SmolEdgeError):
    """A request that is refused, with what a client needs to know about it."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]  # the other errors have one status each
        self.param, self.code, self.headers = param, code, dict(headers or {})


def busy(message: str, status: int = 429) -> HttpError:
    """What can be asked again in a moment."""
    code = "queue_full" if status == 429 else None
    return HttpError(message, status, code=code, headers={"Retry-After": str(RETRY_AFTER_S)})


def problem_of(error: Exception) -> HttpError:
    """What to tell a client about an error; one that nobody foresaw is logged, and not told."""
    match error:
        case HttpError():
            return error
        case SmolEdgeError():
            return _known(error)
        case HTTPException():
            return HttpError(error.detail, error.status_code, headers=error.headers)
        case msgspec.MsgspecError() | UnicodeDecodeError() | RecursionError():
            return _unreadable(error)
    logger.error("a request failed", exc_info=error)
    return HttpError("the server failed on this request; its log says why", 500)


def _known(error: SmolEdgeError) -> HttpError:
    message = " ".join(str(error).split())
    if isinstance(error, ContextError):
        return HttpError(message, error.status, param="messages", code="context_length_exceeded")
    return busy(message, error.status) if error.status in (429, 503) else HttpError(message, error.status)


def _unreadable(error: Exception) -> HttpError:
    """A body that is no JSON, or not of the form that it must have."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return HttpError(f"the body is no JSON that can be read: {text}")
    place = PLACE.search(text)
    return HttpError(PLACE.sub("", text), param=place and place["place"])


def body_of(problem: HttpError) -> bytes:
    """The JSON that tells of it."""
    type_ = TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return msgspec.json.encode(ErrorBody(ErrorDetails(str(problem), type_, problem.param, problem.code)))


def response_of(problem: HttpError) -> Response:
    """The whole answer that tells of it."""
    return Response(body_of(problem), problem.status, problem.headers, "application/json")


async def handle(_: Request, error: Exception) -> Response:
    """What Starlette calls for an error of an endpoint."""
    return response_of(problem_of(error))
