"""Ending an answer early."""

import math
import time
from collections.abc import Callable
from typing import Protocol

from smolvlm_edge.errors import StoppedError
from smolvlm_edge.values import check, is_real, plain


class Event(Protocol):
    """What `threading.Event` has; `multiprocessing.Event` has it too."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Stop:
    """Whether an answer is to end; asked between tiles, chunks of the prompt and tokens."""

    def __init__(self, cancel: Event | None = None, timeout: float | None = None) -> None:
        """Begin to count.

        Args:
            cancel: Ends the answer once it is set.
            timeout: Seconds from now.

        Raises:
            RequestError: They are nothing of that kind.
        """
        timeout = plain(timeout)
        check(
            {
                "timeout must be a number of seconds, more than 0, or None": timeout is None
                or (is_real(timeout, 0, math.inf) and timeout > 0),
                "cancel must be an event, as threading.Event() is, or None": cancel is None
                or (callable(getattr(cancel, "is_set", None)) and not isinstance(cancel, type)),
            }
        )
        self._cancel, self._timeout = cancel, timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._requested = False

    def request(self) -> None:
        """End the answer."""
        self._requested = True

    def check(self) -> None:
        """Go on, or else raise StoppedError."""
        if self._requested or (self._cancel is not None and self._cancel.is_set()):
            raise StoppedError("the answer was cancelled")
        if time.monotonic() > self._deadline:
            raise StoppedError(f"the answer was not complete after {self._timeout:g} s")

    def after(self, callback: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """A callback for progress: the user's, if there is one, and then the question whether to go on."""

        def progress(done: int, total: int) -> None:
            if callback:
                callback(done, total)
            self.check()

        return progress
