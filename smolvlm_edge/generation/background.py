"""A stream that is read by an event loop while a thread computes it."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress

from smolvlm_edge.errors import EngineError
from smolvlm_edge.generation.answer import Chunk
from smolvlm_edge.generation.stopping import Stop

AHEAD = 64
"""Chunks that the thread may be ahead of its reader."""
PAUSE_S = 1 / 30
"""Chunks that come faster are handed over together: waking the event loop takes a processor from the engine, which
waits for all of them. More often, nobody sees it."""
HEAD_START_S = 0.001
"""For the event loop with the first chunk: once the engine computes again, it waits some 2.5 ms for a processor."""


class _Handover:
    """Chunks on their way from a thread to an event loop, which is woken for the first and then looks by itself."""

    def __init__(self, put: Callable[[Chunk], None]) -> None:
        self._loop, self._put = asyncio.get_running_loop(), put
        self._chunks: list[Chunk] = []
        self._asleep, self._lock = True, threading.Lock()
        self._begun = False

    def push(self, chunk: Chunk) -> None:
        """Called in the thread; raises RuntimeError once the loop is closed."""
        with self._lock:
            self._chunks.append(chunk)
            wake, self._asleep = self._asleep, False
        if wake:
            self._loop.call_soon_threadsafe(self.look)
        if not self._begun:
            self._begun = True
            time.sleep(HEAD_START_S)

    def look(self) -> None:
        """Hand over what there is; called in the loop, which looks again until nothing comes any more."""
        with self._lock:
            chunks, self._chunks = self._chunks, []
            self._asleep = not chunks
        for chunk in chunks:
            self._put(chunk)
        if chunks:
            self._loop.call_later(PAUSE_S, self.look)


def start_thread(work: Callable[[], None]) -> None:
    """Have something done by a thread of its own, for which nobody waits at the end of the process."""
    threading.Thread(target=work, name="smol-edge answer", daemon=True).start()


async def run_in_thread(
    answer: Callable[[], Generator[Chunk, None, None]],
    put: Callable[[Chunk], None],
    room: threading.Semaphore,
    stop: Callable[[], None],
    start: Callable[[Callable[[], None]], object] = start_thread,
) -> None:
    """Run a stream in another thread, until it has ended.

    When this is cancelled, the stream is stopped, and waited for: the model is free afterwards.

    Args:
        answer: Makes the stream; called in the thread.
        put: Takes its chunks; called in the event loop.
        room: Places for chunks that nobody has read yet; whoever reads one releases it.
        stop: Lets the stream end with its next chunk.
        start: Has the work done by a thread.

    Raises:
        Exception: What ended the stream.
    """
    loop, handover = asyncio.get_running_loop(), _Handover(put)
    ended: asyncio.Future[Exception | None] = loop.create_future()

    def end(error: Exception | None) -> None:
        try:
            handover.look()
        finally:
            ended.set_result(error)

    def work() -> None:
        error: Exception | None = None
        with suppress(RuntimeError):  # the loop is closed, nobody listens
            try:
                with closing(answer()) as chunks:
                    for chunk in chunks:
                        room.acquire()
                        handover.push(chunk)
            except BaseException as raised:  # noqa: BLE001 - whoever waits for the end raises it
                broken = EngineError(f"the answer was broken off: {type(raised).__name__}")
                error = raised if isinstance(raised, Exception) else broken
            loop.call_soon_threadsafe(end, error)

    try:
        start(work)
    except BaseException:
        stop()  # it may have been taken on all the same, for a thread to come
        room.release()
        raise
    try:
        if error := await asyncio.shield(ended):
            raise error
    finally:
        stop()
        room.release()
        while not ended.done():
            with suppress(asyncio.CancelledError):  # who cancels again waits, too
                await asyncio.shield(ended)


async def stream_in_thread(
    answer: Callable[[], Generator[Chunk, None, None]], stop: Stop
) -> AsyncGenerator[Chunk, None]:
    """Read a stream that a thread computes; when the reader is cancelled or closed, the model is free afterwards.

    Args:
        answer: Makes the stream; called in the thread.
        stop: What the stream asks whether to go on.

    Yields:
        Its chunks.
    """
    arrived: asyncio.Queue[Chunk | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)
    work = asyncio.ensure_future(run_in_thread(answer, arrived.put_nowait, room, stop.request))
    work.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        while (chunk := await arrived.get()) is not None:
            room.release()
            yield chunk
        await work
    finally:
        work.cancel()
        await asyncio.wait([work])
