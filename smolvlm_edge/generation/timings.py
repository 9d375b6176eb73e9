"""What an answer cost: times and memory, as they travel with every chunk."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Timings:
    """Cost of an answer so far. Times are wall-clock milliseconds."""

    load_ms: float = 0.0
    """Checking the bundle and opening its graphs, all of them together."""
    queue_ms: float = 0.0
    """Waiting for other callers, before anything of this answer was computed."""
    preprocess_ms: float = 0.0
    """Reading, resizing and cutting the pictures, and tokenizing the prompt."""
    vision_ms: float = 0.0
    """Vision encoder and connector over the encoded tiles."""
    prefill_ms: float = 0.0
    """The decoder over the prompt, as far as it was not in the cache."""
    ttft_ms: float = 0.0
    """Time to first token: from the call to the first token, with whatever had to be opened in between."""
    decode_tokens_per_s: float = 0.0
    """Rate of the tokens after the first."""
    constraint_ms: float = 0.0
    """Keeping the answer to a schema, regular expression or choices: compiling it once, and a mask for every token."""
    tiles: int = 0
    encoded_tiles: int = 0
    """How many of them were computed: no tile twice, and none whose features were kept from an earlier prompt."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """How many of the prompt's first tokens were in the cache already, left by the prompt before."""
    generated_tokens: int = 0
    batch_size: float = 0.0
    """Sequences that were decoded together, on average over this answer's tokens after the first; 1 is alone."""
    peak_rss_bytes: int | None = None
    """The most memory this process had resident, up to the first token or, at the end of the answer, the last one; None
    where the system does not tell (Windows)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to thousandths."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


class Clock:
    """Measures one answer, from the moment the clock is made."""

    def __init__(self, load_ms: float = 0.0) -> None:
        self._start = time.perf_counter()
        self._first_token = self._start
        self._peak_rss_bytes: int | None = None
        self._spent_ms: defaultdict[str, float] = defaultdict(float, load_ms=load_ms)

    def since(self, name: str, start: float) -> None:
        """Add the time since a moment of `time.perf_counter` to a field of `Timings`."""
        self._spent_ms[name] += (time.perf_counter() - start) * 1000

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a field of `Timings`."""
        start = time.perf_counter()
        yield
        self.since(name, start)

    def timings(
        self,
        *,
        tiles: int,
        encoded_tiles: int,
        prompt_tokens: int,
        cached_tokens: int,
        generated_tokens: int,
        batch_size: float,
        finished: bool,
    ) -> Timings:
        """The cost up to now; called after every token."""
        now = time.perf_counter()
        if generated_tokens == 1:
            self._first_token = now
        if generated_tokens == 1 or finished:  # asking takes 0.2 ms, as long as a layer of a token
            self._peak_rss_bytes = peak_rss_bytes()
        decoding = now - self._first_token
        return Timings(
            **self._spent_ms,
            ttft_ms=(self._first_token - self._start) * 1000,
            decode_tokens_per_s=(generated_tokens - 1) / decoding if generated_tokens > 1 else 0.0,
            tiles=tiles,
            encoded_tiles=encoded_tiles,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            generated_tokens=generated_tokens,
            batch_size=batch_size,
            peak_rss_bytes=self._peak_rss_bytes,
        )


def peak_rss_bytes() -> int | None:
    """The most memory this process ever had resident."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
