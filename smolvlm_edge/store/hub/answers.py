"""What a hub answers that is no file: bounded in bytes, since the library reads without end and keeps it all."""

from threading import local
from typing import Any

from huggingface_hub import get_session

from smolvlm_edge.errors import DownloadError
from smolvlm_edge.store.hub.wording import endpoint

MOST_BYTES = 64 << 20
_asking = local()


def bound_answers() -> None:
    """Have this thread, which asks for no file, read answers through `_read`.

    The library's client is one of httpx, before 1.0 of requests.
    """
    _asking.bounded = True
    session: Any = get_session()
    hooks = (session.event_hooks if hasattr(session, "event_hooks") else session.hooks)["response"]
    if _read not in hooks:
        hooks.append(_read)


def _read(response: Any, *_: object, **__: object) -> None:
    if not getattr(_asking, "bounded", False):
        return
    data = bytearray()
    for piece in response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(1 << 16):
        data += piece
        if len(data) > MOST_BYTES:
            raise DownloadError(f"what {endpoint()} answers goes on beyond the {MOST_BYTES:,} bytes that it may have")
    response._content = bytes(data)  # where both kinds look first
