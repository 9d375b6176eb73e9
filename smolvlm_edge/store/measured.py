"""What was found to be fastest on this machine: what `--engine auto` goes by first.

`smol-edge bench --store` finds it out by whole answers, the first load of a model by name by one tile and one chunk of
a prompt (`graphs.trial`), if nothing is known yet.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.machine import installed_version, processor_features, processor_name
from smolvlm_edge.store.verified import home

if TYPE_CHECKING:
    from filelock import FileLock

FILE = "engines.json"
DISTRIBUTIONS = ("smol-edge", "onnxruntime", "openvino")
BENCH, FIRST_LOAD = "by smol-edge bench", "when a model was first loaded"
Seconds = Mapping[Any, Mapping[Any, float]]
"""By half and engine, whose names are known further up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is fastest for bundles of one shape and recipe."""

    engine: str
    """As `--engine` takes it; a half that was not measured is left out."""
    day: str
    """Of the measurement, as in 2026-11-23."""
    origin: str = BENCH
    """What measured."""
    seconds: Seconds = field(default_factory=dict)
    """Of the trials at the first load."""

    @classmethod
    def of(cls, entry: object) -> Self | None:
        """An entry of the file, if it is whole."""
        match entry:
            case {"engine": str(engine), "day": str(day), "origin": str(origin), "seconds": dict(seconds)}:
                return cls(engine, day, origin, {half: times for half, times in seconds.items() if _is_times(times)})
            case {"engine": str(engine), "day": str(day)}:
                return cls(engine, day)
        return None


def recall(bundle: Bundle, threads: int) -> Measured | None:
    """What was measured with the same versions, processor, threads, shape and recipe."""
    return Measured.of(_entries().get(_key(_circumstances(bundle, threads))))


def remember(bundle: Bundle, threads: int, engine: str, origin: str = BENCH, seconds: Seconds | None = None) -> Path:
    """Keep a measurement; returns the file. It takes the place of an older one, and appears whole or not at all.

    Raises:
        OSError: The cache folder cannot be written.
    """
    circumstances = _circumstances(bundle, threads)
    measured = Measured(engine, datetime.now(UTC).date().isoformat(), origin, seconds or {})
    entries = {**_entries(), _key(circumstances): {**asdict(measured), **circumstances}}
    home().mkdir(parents=True, exist_ok=True)
    path = home() / FILE
    staged = path.with_name(f".{FILE}.{os.getpid()}")
    staged.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    staged.replace(path)
    return path


def measuring_alone() -> "FileLock":
    """Held by the process that measures: several at once would measure each other.

    Raises:
        OSError: The cache folder cannot be written.
    """
    from filelock import FileLock  # noqa: PLC0415 - of no use to a bundle that is named by its folder

    home().mkdir(parents=True, exist_ok=True)
    return FileLock(home() / f".{FILE}.lock", timeout=0)


def _is_times(times: object) -> bool:
    return isinstance(times, dict) and all(isinstance(seconds, int | float) for seconds in times.values())


def _circumstances(bundle: Bundle, threads: int) -> dict[str, Any]:
    """All that speed depends on."""
    graphs = json.dumps([bundle.model.to_dict(), bundle.recipe["rules"]], sort_keys=True)
    return {
        "versions": {name: installed_version(name) for name in DISTRIBUTIONS},
        "processor": processor_name(),
        "features": processor_features(),
        "threads": threads,
        "recipe": bundle.recipe["name"],
        "graphs": hashlib.sha256(graphs.encode()).hexdigest(),
    }


def _key(circumstances: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()[:16]


def _entries() -> dict[str, Any]:
    try:
        found = json.loads((home() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
