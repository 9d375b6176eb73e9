"""An answer under way: its chunks, what is done meanwhile, and a client that may leave at any time."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from starlette.types import Receive

from smolvlm_edge.constraints import RULES
from smolvlm_edge.conversation.messages import RawMessage
from smolvlm_edge.errors import IncompleteError, StoppedError
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions
from smolvlm_edge.generation.background import AHEAD, run_in_thread
from smolvlm_edge.server.metrics import Metrics
from smolvlm_edge.server.residents import Resident, Residents
from smolvlm_edge.server.slots import Slots

KEEP_ALIVE_S = 5.0
"""Without a word for so long, a proxy may take a connection for dead."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done before the first token."""

    phase: Literal["waiting", "tiles", "prompt"]
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.phase} {self.done}/{self.total}" if self.total else self.phase


Events = asyncio.Queue[Chunk | Progress | Exception | None]
"""What happens to an answer; an error or None is its end."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked: a conversation, or a text with pictures before it."""

    options: GenerateOptions
    messages: list[RawMessage] | None = None
    images: list[bytes] = field(default_factory=list)
    prompt: str = ""


class Answering:
    """Lets questions in, and answers them."""

    def __init__(self, residents: Residents, slots: Slots, metrics: Metrics, seconds: float) -> None:
        self._residents, self._slots, self._metrics, self._seconds = residents, slots, metrics, seconds
        # kept, because what an engine has at hand for a thread is made anew for a new one
        self._threads = ThreadPoolExecutor(slots.parallel, "smol-edge answer")

    async def answer(self, resident: Resident, question: Question) -> AsyncGenerator[Chunk | Progress, None]:
        """The chunks of an answer, and its progress; closing this ends the answer, and waits for that.

        Raises:
            HttpError: Too many wait already.
            SmolEdgeError: As `SmolVLM.stream`.
        """
        events: Events = asyncio.Queue()
        room = threading.Semaphore(AHEAD)
        async with self._slots.admitted() as places:
            work = asyncio.ensure_future(self._compute(resident, question, places, events, room))
            try:
                while (event := await _next(events)) is not None:
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Chunk):
                        room.release()
                    yield event
            finally:
                work.cancel()
                await asyncio.wait([work])

    async def whole(self, resident: Resident, question: Question) -> Answer:
        """The whole answer; raises what `answer` raises."""
        async with aclosing(self.answer(resident, question)) as events:
            return Answer.of([event async for event in events if isinstance(event, Chunk)])

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)

    async def _compute(
        self,
        resident: Resident,
        question: Question,
        places: asyncio.Semaphore,
        events: Events,
        room: threading.Semaphore,
    ) -> None:
        deadline, last = time.monotonic() + self._seconds, None
        cancel = threading.Event()

        def put(chunk: Chunk) -> None:
            nonlocal last
            last = _whole(chunk, question.options)
            events.put_nowait(last)

        try:
            async with places, self._residents.use(resident) as model:
                options: GenerateOptions = {
                    **question.options,
                    **_progress(events),
                    "timeout": _left(deadline, self._seconds),
                    "allow_paths": False,
                    "cancel": cancel,
                }
                ask = partial(model.stream, question.images, question.prompt, messages=question.messages, **options)
                await run_in_thread(ask, put, room, cancel.set, self._threads.submit)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            events.put_nowait(_cut_off(last) if last and isinstance(error, IncompleteError) else error)
        finally:
            events.put_nowait(None)
            if last:
                self._metrics.count(last.timings)


async def _next(events: Events) -> Chunk | Progress | Exception | None:
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            return await events.get()
    except TimeoutError:
        return Progress("waiting")


def _whole(chunk: Chunk, options: GenerateOptions) -> Chunk:
    """An answer that was brought to a valid end has ended: clients throw away what the length cut off."""
    completed = chunk.finish_reason == "length" and options.get("on_limit") == "complete"
    return replace(chunk, finish_reason="stop") if completed and options.keys() & RULES.keys() else chunk


def _cut_off(last: Chunk) -> Chunk:
    """The end of an answer that did not get the form that it was to have, as OpenAI tells of it."""
    timings = replace(last.timings, generated_tokens=last.timings.generated_tokens + 1)
    return replace(last, text="", finish_reason="length", timings=timings, logprobs=None)


def _left(deadline: float, seconds: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise StoppedError(f"it was not this request's turn within {seconds:g} s")
    return max(round(left, 2), 0.01)


def _progress(events: Events) -> GenerateOptions:
    """Callbacks that are called in the thread that computes."""
    loop = asyncio.get_running_loop()

    def put(progress: Progress) -> None:
        if events.qsize() < AHEAD:  # who does not read needs no progress
            events.put_nowait(progress)

    def on_tile(done: int, total: int) -> None:
        loop.call_soon_threadsafe(put, Progress("tiles", done, total))

    def on_prefill(done: int, total: int) -> None:
        if done < total:  # the end is told by the first token, which is about to come
            loop.call_soon_threadsafe(put, Progress("prompt", done, total))

    return {"on_tile": on_tile, "on_prefill": on_prefill}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives; None if the client leaves first, and then the work has ended too."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait({task, gone})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
