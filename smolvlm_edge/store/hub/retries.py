"""Patience with a hub: what it refused for now is tried again, and what it never answers comes to an end."""

import os
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from smolvlm_edge.errors import DownloadError
from smolvlm_edge.store.hub.wording import endpoint, status_of

TRIES = 4
PATIENCE = float(os.environ.get("SMOL_EDGE_HUB_TIMEOUT") or 120)
"""Seconds for one answer of the hub that is no file, with all that is tried again."""
FIRST_WAIT = 1.0  # seconds before the second try; each wait is twice the one before

T = TypeVar("T")


def within(call: Callable[[], T]) -> T:
    """Ask patiently, but not for ever: a hub may accept and never answer, or never come to an end.

    Raises:
        DownloadError: No answer within `PATIENCE`.
    """
    answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((patiently(call), None))
        except BaseException as error:  # noqa: BLE001 - raised where it was asked
            answers.put((None, error))

    Thread(target=ask, daemon=True).start()
    try:
        answer, error = answers.get(timeout=PATIENCE)
    except Empty:
        raise DownloadError(f"{endpoint()} did not answer within {PATIENCE:g} seconds: repeat the command") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # there is no error, so it is there


def patiently(call: Callable[[], T]) -> T:
    """Try again, a few times, what a busy or broken hub refused; the library does so only for some of it."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except OSError as error:
            if not _is_passing(error):
                raise
            time.sleep(FIRST_WAIT * 2**attempt)
    return call()


def _is_passing(error: BaseException) -> bool:
    """A hub out of reach the library tries itself; a connection that breaks in a file's middle only from 1.0 on."""
    status = status_of(error)
    if status is None:
        return type(error).__name__ == "ChunkedEncodingError"  # of requests, which later versions do without
    return status == 429 or status >= 500
