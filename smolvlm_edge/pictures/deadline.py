"""Work that a deadline can reach although it cannot be interrupted, as decoding a picture cannot."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import BoundedSemaphore, Thread
from typing import TypeVar

T = TypeVar("T")
Check = Callable[[], None]
"""Raises to end what is under way, as `Stop.check` does."""
STEP_S = 0.05
_decoders = BoundedSemaphore(4)
"""So many at a time, those included that nobody waits for any more: memory stays bounded."""


def until_stopped(work: Callable[[], T], check: Check | None) -> T:
    """The result of some work; if `check` raises first, that, and the work goes on for nobody to its bounded end."""
    if check is None:
        return work()
    check()
    while not _decoders.acquire(timeout=STEP_S):
        check()
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            result.set_exception(error)
        finally:
            _decoders.release()

    Thread(target=run, name="smol-edge decoder", daemon=True).start()
    while not wait([result], timeout=STEP_S).done:
        check()
    return result.result()
