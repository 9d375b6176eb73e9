"""One answer at a time, in the order of the questions: two would write into the same cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, get_ident
from typing import Literal

from smolvlm_edge.errors import BusyError, RequestError
from smolvlm_edge.generation.stopping import Stop

Busy = Literal["wait", "raise"]

PATIENCE_S = 0.05
"""How long a waiting caller sleeps before it looks whether its answer is still wanted."""


class Queue:
    """Lets one caller in at a time; who came first goes first."""

    def __init__(self, busy: Busy) -> None:
        self._busy = busy
        self._callers: list[_Caller] = []
        """The one whose turn it is, and those who wait."""
        self._changed = Condition()  # on a lock that a generator may take again when it is collected in mid-air

    @contextmanager
    def turn(self, stop: Stop) -> Iterator[None]:
        """Wait for this caller's turn, and hold it.

        Raises:
            BusyError: Somebody else is being answered and nobody is to wait.
            RequestError: This thread would wait for itself.
            StoppedError: The answer was not wanted for so long.
        """
        caller = _Caller()
        try:
            with self._changed:
                self._refuse()
                self._callers.append(caller)
                while self._callers[0] is not caller:
                    stop.check()
                    self._changed.wait(PATIENCE_S)
            yield
        finally:
            with self._changed:
                if caller in self._callers:
                    self._callers.remove(caller)
                self._changed.notify_all()

    def _refuse(self) -> None:
        if not self._callers:
            return
        if self._callers[0].thread == get_ident():
            raise RequestError("this thread is still reading an answer: read it to its end, or close its stream")
        if self._busy == "raise":
            raise BusyError("the model is still answering somebody else: ask again later")


class _Caller:
    def __init__(self) -> None:
        self.thread = get_ident()
