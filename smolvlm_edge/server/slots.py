"""How many requests are answered at once, and how many wait for that, in the order in which they came."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from smolvlm_edge.server.problems import busy


class Slots:
    """A place for every answer."""

    def __init__(self, parallel: int, waiting: int) -> None:
        self._places, self._most = asyncio.Semaphore(parallel), parallel + waiting
        self.parallel = parallel
        self.here = 0
        """Requests that are answered or wait."""

    @property
    def running(self) -> int:
        """Requests that are answered."""
        return min(self.here, self.parallel)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self.here - self.running

    def check(self) -> None:
        """Refuse early, before pictures are fetched and unpacked, what would not be let in.

        Raises:
            HttpError: There are enough already.
        """
        if self.here >= self._most:
            raise busy(f"{self.here} requests are answered or wait already: ask again later")

    @asynccontextmanager
    async def admitted(self) -> AsyncGenerator[asyncio.Semaphore, None]:
        """Be let in; what comes back is waited for when it is time to compute.

        Raises:
            HttpError: There are enough already.
        """
        self.check()
        self.here += 1
        try:
            yield self._places
        finally:
            self.here -= 1
