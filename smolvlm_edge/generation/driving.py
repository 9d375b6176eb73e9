"""Callers from many threads, and the one of them that computes for all."""

import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Condition, get_ident
from typing import Literal

from smolvlm_edge.errors import BusyError, EngineError, RequestError
from smolvlm_edge.generation.answer import Chunk
from smolvlm_edge.generation.scheduler import Scheduler, Task
from smolvlm_edge.generation.stopping import Stop

Busy = Literal["wait", "raise"]

PATIENCE_S = 0.05
"""How long a waiting caller sleeps before it looks whether its answer is still wanted."""
READ_AHEAD = 2
"""Callers that may read their pictures before there is a slot for them, where there are several slots."""
WAITS_FOR_ITSELF = "this thread is still reading an answer: read it to its end, or close its stream"
MOST_UNREAD = 16
"""Callers that may hold pictures which are not encoded yet: one in full detail takes 10 MB."""
AHEAD = 16
"""Tokens that an answer may be ahead of its reader."""


class Job(Task):
    """A task whose tokens somebody reads."""

    def __init__(self, room: int) -> None:
        """Takes what `Task` takes; made by the thread that reads."""
        super().__init__(room)
        self.thread = get_ident()
        self.chunks: deque[Chunk] = deque()
        """What came of the tokens, until it is read."""

    def is_ready(self) -> bool:
        """Whether there is room for another token."""
        return len(self.chunks) < AHEAD


class Caller:
    """Who is being answered, or waits."""

    def __init__(self, *, unread: bool) -> None:
        """Made by the thread that waits."""
        self.thread = get_ident()
        self.begun = False
        """Whether its turn has come."""
        self.unread = unread
        """Whether it has, or will have, pictures that the model has not seen."""


class Driver:
    """Lets callers in, in the order in which they came, and lets one of those that wait for a token compute.

    There is no thread of its own: who waits for its next token makes steps until that is there, for all the others as
    well, and then the next one does. One thread at a time computes. With one answer at a time, it is always the caller
    whose answer it is.
    """

    def __init__(self, scheduler: Scheduler, busy: Busy) -> None:
        self.scheduler, self._busy = scheduler, busy
        self.callers: list[Caller] = []
        """Those who are being answered, and those who wait."""
        self._inside = scheduler.width + (READ_AHEAD if scheduler.width > 1 else 0)
        self._driver: int | None = None
        """The thread that computes."""
        self._changed = Condition()  # on a lock that a generator may take again when it is collected in mid-air
        self._process = os.getpid()

    @contextmanager
    def turn(self, stop: Stop, asking: int, *, reads: bool) -> Iterator[Caller]:
        """Wait for this caller's turn to read its pictures and to be answered, and hold it.

        Args:
            stop: Whether the answer is still wanted.
            asking: The thread that waits for the answer, if another one does this for it.
            reads: Whether it has pictures to read.

        Raises:
            BusyError: Everything is taken and nobody is to wait.
            RequestError: The thread would wait for itself.
            StoppedError: The answer was not wanted for so long.
        """
        caller = Caller(unread=reads)
        try:
            with self._changed:
                if len(self.callers) >= self.scheduler.width:
                    self._refuse(asking)
                self.callers.append(caller)
                while not self._may_begin(caller, asking):
                    stop.check()
                    self._changed.wait(PATIENCE_S)
                caller.begun = True
            yield caller
        finally:
            if os.getpid() == self._process:
                with self._changed:
                    if caller in self.callers:
                        self.callers.remove(caller)
                    self._changed.notify_all()

    def run(self, job: Job, asking: int) -> Generator[Chunk, None, None]:
        """Have a job done; what comes of its tokens, one by one.

        Raises:
            RequestError: It can never fit, or the thread would wait for itself.
            Exception: What ended it.
        """
        self.scheduler.insert(job)
        try:
            while self._await(job, asking):
                job.check()  # what was computed ahead of its reader is wanted no longer than what is not
                yield job.chunks.popleft()
            if job.error is not None:
                raise job.error
        finally:
            if os.getpid() == self._process:  # a forked process would wait for threads that it does not have
                self._remove(job)

    def _await(self, job: Job, asking: int) -> bool:
        """Wait until there is something to read, computing if nobody else does; False at the end."""
        idle = False
        while not job.chunks and not job.done:
            with self._changed:
                if self._driver is not None or idle:
                    if idle and self._driver is None and not job.admitted:
                        self._check_others(asking)
                    self._changed.wait(PATIENCE_S)
                    idle = False
                    continue
                self._driver = get_ident()
            idle = not self._step()
        return bool(job.chunks)

    def _check_others(self, asking: int) -> None:
        """Refuse to wait for a slot that this thread itself would have to free."""
        if all(isinstance(task, Job) and task.thread == asking for task in self.scheduler.admitted):
            raise RequestError(WAITS_FOR_ITSELF)

    def _step(self) -> bool:
        try:
            return self.scheduler.step()
        except BaseException:  # an interrupt
            self.scheduler.abandon(EngineError("the computation was interrupted: ask again"))
            raise
        finally:
            with self._changed:
                self._driver = None
                self._changed.notify_all()

    def _may_begin(self, caller: Caller, asking: int) -> bool:
        inside = self.callers[: self._inside]
        if caller not in inside or not caller.unread:
            return caller in inside
        # a thread that is answered already may be who the others wait for: it goes on, to be told so if need be
        return caller in [each for each in inside if each.unread][:MOST_UNREAD] or self._answers(asking) > 0

    def _answers(self, asking: int) -> int:
        """How many answers a thread is reading."""
        return sum(caller.begun and caller.thread == asking for caller in self.callers)

    def _refuse(self, asking: int) -> None:
        if len(self.callers) >= self._inside and self._answers(asking) >= self.scheduler.width:
            raise RequestError(WAITS_FOR_ITSELF)
        if self._busy == "raise":
            raise BusyError("the model is still answering somebody else: ask again later")

    def _remove(self, job: Job) -> None:
        job.unwanted = True
        with self._changed:
            while not job.done and self._driver not in {None, get_ident()}:
                self._changed.wait(PATIENCE_S)
            if self._driver is None:  # else this thread was computing when the stream was collected; the step sees it
                self.scheduler.remove(job)
            self._changed.notify_all()
