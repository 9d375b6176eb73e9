"""How many callers ask at once, and what they tell: one request, one process, one JSON object on the last line.

A request holds the fields of `Asked`; a report `callers`, for each of them the seconds from its question to every
token, `seconds` from the first question to the last token, `load_s` and `peak_rss_bytes`. This file runs in every
peer's environment, so it knows the standard library only.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """What is asked."""

    model: dict[str, Any]
    callers: int
    parallel: int
    """How many are answered at once."""
    pictures: Sequence[str]
    """A path for each caller; none for questions without a picture."""
    prompt: str
    tokens: int
    """That every caller gets, end-of-turn tokens or not."""
    detail: str
    threads: int


@dataclass(frozen=True)
class Times:
    """Of one caller, by `time.perf_counter`."""

    asked: float
    tokens: list[float]


def together(ask: Callable[[int], list[float]], callers: int) -> list[Times]:
    """Let so many ask at the same moment."""
    ready = threading.Barrier(callers)

    def one(number: int) -> Times:
        ready.wait()
        start = time.perf_counter()
        return Times(start, ask(number))

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(one, range(callers)))


def report(callers: list[Times], load_s: float, peak_rss_bytes: int | None) -> None:
    """Hand it in."""
    first, last = min(each.asked for each in callers), max(each.tokens[-1] for each in callers)
    tokens = [[round(moment - each.asked, 5) for moment in each.tokens] for each in callers]
    found = {"callers": tokens, "seconds": last - first, "load_s": load_s, "peak_rss_bytes": peak_rss_bytes}
    print(json.dumps(found))
