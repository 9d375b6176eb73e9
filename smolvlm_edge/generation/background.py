"""A stream that is read by an event loop while a thread computes it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress

from smolvlm_edge.generation.answer import Chunk
from smolvlm_edge.generation.stopping import Stop

AHEAD = 16
"""Chunks that the thread may be ahead of its reader."""


async def stream_in_thread(
    answer: Callable[[], Generator[Chunk, None, None]], stop: Stop
) -> AsyncGenerator[Chunk, None]:
    """Run a stream in a thread of its own.

    When the reader is cancelled or closed, the stream is stopped, and waited for: the model is free afterwards.

    Args:
        answer: Makes the stream; called in the thread.
        stop: What the stream asks whether to go on.

    Yields:
        Its chunks.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)

    def send(item: Chunk | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed, nobody listens
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    def work() -> None:
        end = None
        try:
            with closing(answer()) as chunks:
                for chunk in chunks:
                    send(chunk)
                    room.acquire()
        except Exception as error:  # noqa: BLE001 - the reader raises it
            end = error
        send(end)

    threading.Thread(target=work, name="smol-edge answer", daemon=True).start()
    item: Chunk | Exception | None = None
    under_way = True
    try:
        while under_way:
            item = await arrived.get()
            room.release()
            if under_way := isinstance(item, Chunk):
                yield item
        if isinstance(item, Exception):
            raise item
    finally:
        stop.request()
        room.release()
        while under_way:
            under_way = isinstance(await arrived.get(), Chunk)
