"""How a peer is asked, and what it tells: one request, one process, one JSON object on the last line of stdout.

A request (the only argument, JSON) holds

* `model`: what `systems.py` says this peer needs: folders, files, names;
* `pictures`: paths, possibly none; `split`: whether they are cut into tiles;
* `prompt`: the question; `rendered`: the same in the model's chat template, `<image>` for every picture;
* `tokens`: how many to generate, greedily, end-of-turn tokens or not; `threads`.

A report holds the fields of `Report`. Memory, energy and processor time are measured by who started the process.
This file runs in every peer's environment, so it knows the standard library only.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass
class Report:
    """What a run cost. Times are wall-clock milliseconds; a part that a peer does not show stays None."""

    load_ms: float = 0.0
    """Until a question can be asked; imports are not in it."""
    preprocess_ms: float | None = None
    """Reading and cutting the pictures, and tokenizing."""
    vision_ms: float | None = None
    """Encoder and connector, all tiles."""
    prefill_ms: float | None = None
    """The decoder over the prompt; what is left of `ttft_ms` where a peer does not show it."""
    ttft_ms: float = 0.0
    """Time to first token: from the question, the model being loaded, to the first token."""
    decode_tokens_per_s: float = 0.0
    """Rate of the tokens after the first."""
    second_ttft_ms: float | None = None
    """Time to first token of another question about the same pictures; for who keeps something from the first."""
    tiles: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    text: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def print(self) -> None:
        """Hand it in."""
        print(json.dumps(asdict(self)))


class Stopwatch:
    """Adds up the time spent in parts of a run."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent inside."""
        start = time.perf_counter()
        yield
        self.ms[name] = self.ms.get(name, 0.0) + (time.perf_counter() - start) * 1000

    def around(self, name: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, timed."""

        @wraps(function)  # transformers looks at signatures
        def timed(*arguments: Any, **options: Any) -> Result:
            with self(name):
                return function(*arguments, **options)

        return timed


def request() -> dict[str, Any]:
    """What this process was started for."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    return asked
