"""Many answers at once: which of them gets the graphs next.

Knows positions and tokens; nothing of text, pictures, files or callers. It is driven: whoever waits for a token calls
`step` (see `driving`), and one thread at a time may.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from smolvlm_edge.errors import EngineError, RequestError
from smolvlm_edge.graphs import Floats

if TYPE_CHECKING:
    from smolvlm_edge.generation.slots import Slots

Work = Generator[None, None, Floats]
"""What comes before the first token: every `next` does one bounded piece of it, a tile or a chunk of the prompt."""


class Task(ABC):
    """One answer, as the scheduler sees it."""

    def __init__(self, room: int) -> None:
        """Describe it.

        Args:
            room: Positions that its prompt and its answer may take.
        """
        self.room = room
        self.slots: Slots | None = None
        """The cache that it lies in, once it does; after a model was closed and opened, that is another one."""
        self.slot = -1
        self.token = -1
        """The token that was chosen and is yet to be appended."""
        self.decoded = self.neighbours = 0
        """Runs of the decoder that it took part in, and all sequences in them."""
        self.admitted = self.done = self.unwanted = False
        self.error: BaseException | None = None
        """Why it ended, if that was not its last token."""
        self.pieces = self.work()

    @abstractmethod
    def work(self) -> Work:
        """Set `slots` and `slot`, and return the logits [vocab_size] of the prompt's last position."""

    @abstractmethod
    def accept(self, logits: Floats) -> int | None:
        """Choose a token by its logits [vocab_size]; None instead if that was the last one."""

    @abstractmethod
    def check(self) -> None:
        """Raise what is to end the answer early; asked once a step."""

    def is_ready(self) -> bool:
        """Whether its reader wants another token: nobody else waits for one who is slow."""
        return True


class Scheduler:
    """Insert, remove, step.

    A step gives one token to every answer under way, in one run of the decoder, and then does one piece of the work of
    an answer that is yet to begin; these take turns. So what streams keeps streaming, a long prompt does not stop a
    short one, and nobody starves. Who came first gets the next slot.
    """

    def __init__(self, width: int, budget: int | None = None) -> None:
        """Begin with nothing to do.

        Args:
            width: Answers under way at once.
            budget: Positions that they may take together; None for any number.
        """
        self.width, self.budget = width, budget
        self._waiting: list[Task] = []  # lists, to which other threads may append while one looks at them
        self._preparing: list[Task] = []
        self._running: list[Task] = []
        self._closed: EngineError | None = None

    @property
    def admitted(self) -> list[Task]:
        """Those that have a slot, or will have one."""
        return [*self._preparing, *self._running]

    def insert(self, task: Task) -> None:
        """Take an answer on; any thread may call this.

        Raises:
            RequestError: It can never fit.
        """
        if self.budget is not None and task.room > self.budget:
            raise RequestError(
                f"the prompt and its longest answer take {task.room} positions of the key/value cache and cache_bytes "
                f"has room for {self.budget}: ask for fewer max_tokens or a lower detail, or load with more cache_bytes"
            )
        self._waiting.append(task)

    def remove(self, task: Task, error: BaseException | None = None) -> None:
        """Forget an answer, whatever it has come to; its slot is free."""
        if task.done:
            return
        task.done, task.error = True, error
        for tasks in (self._waiting, self._preparing, self._running):
            if task in tasks:
                tasks.remove(task)
        task.pieces.close()
        if task.slots is not None:
            task.slots.give_back(task.slot)
            task.slots = None

    def step(self) -> bool:
        """One token for every answer under way, and one piece of work; whether there was anything to do."""
        self.sweep()
        self._admit()
        self._close_ranks()
        decoded = self._decode()
        return self._work() or decoded

    def sweep(self) -> None:
        """Remove what nobody wants any more."""
        closed, self._closed = self._closed, None
        for task in (*self._waiting, *self.admitted):
            if task.unwanted or (closed is not None and task.admitted):
                self.remove(task, closed)
            else:
                self._guarded(task, task.check)

    def close(self, error: EngineError) -> None:
        """End all that has begun, at the next step; any thread may call this."""
        self._closed = error

    def abandon(self, error: BaseException) -> None:
        """End all that has begun: a step was interrupted, and nobody knows where."""
        for task in self.admitted:
            self.remove(task, error)

    def _admit(self) -> None:
        while self._waiting and len(self.admitted) < self.width and self._has_room(self._waiting[0]):
            task = self._waiting.pop(0)
            task.admitted = True
            self._preparing.append(task)

    def _has_room(self, task: Task) -> bool:
        return self.budget is None or sum(each.room for each in self.admitted) + task.room <= self.budget

    def _close_ranks(self) -> None:
        """Move the last answer into a gap that nobody is about to fill: a gap takes as long as an answer."""
        if self._waiting or self._preparing or not self._running:
            return
        first, last = (choose(self._running, key=lambda task: task.slot) for choose in (min, max))
        gap = next((slot for slot in last.slots.free if slot > first.slot), last.slot) if last.slots else last.slot
        if last.slots is not None and gap < last.slot:
            last.slots.move(last.slot, gap)
            last.slot = gap

    def _decode(self) -> bool:
        ready = sorted((task for task in self._running if task.is_ready()), key=lambda task: task.slot)
        for slots in {id(task.slots): task.slots for task in ready}.values():
            tasks = [task for task in ready if task.slots is slots]
            assert slots is not None
            try:
                logits = slots.step([task.token for task in tasks], [task.slot for task in tasks])
            except Exception as error:  # noqa: BLE001 - the answers' readers raise it
                for task in tasks:
                    self.remove(task, error)
                continue
            for task, row in zip(tasks, logits, strict=True):
                task.decoded, task.neighbours = task.decoded + 1, task.neighbours + len(tasks)
                self._take(task, row)
        return bool(ready)

    def _work(self) -> bool:
        """One piece of the work of who had none for the longest."""
        if not self._preparing:
            return False
        task = self._preparing.pop(0)
        self._preparing.append(task)
        try:
            next(task.pieces)
        except StopIteration as end:
            self._preparing.remove(task)
            self._running.append(task)
            self._take(task, end.value)
        except Exception as error:  # noqa: BLE001 - the answer's reader raises it
            self.remove(task, error)
        return True

    def _take(self, task: Task, logits: Floats) -> None:
        token = self._guarded(task, task.accept, logits)
        if token is None:
            self.remove(task)
        else:
            task.token = token

    def _guarded(self, task: Task, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of an answer's returns; what it raises ends that answer alone."""
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - the answer's reader raises it
            self.remove(task, error)
            return None
