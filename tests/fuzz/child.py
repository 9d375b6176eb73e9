"""Reads damaged inputs in a process of its own, and tells by shared memory which one it is at."""

import contextlib
import faulthandler
import os
import resource
import sys
import tempfile
import traceback
import warnings
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from smolvlm_edge.errors import SmolEdgeError
from tests.fuzz.mutator import damage

LARGEST_RSS, LARGEST_MEMORY = 1 << 30, 6 << 30
"""Bytes: what is a finding, and where the system refuses."""
IN_A_PROCESS = 1000
"""Inputs: an engine that is opened thousands of times keeps addresses, and what counts is one input's memory."""


def parser(name: str) -> ModuleType:
    """The module of that name."""
    return import_module(f"tests.fuzz.parsers.{name}")


def make(name: str, seed: int, index: int, seeds: list[bytes]) -> bytes:
    """The input of that number."""
    return damage(Random(f"{seed} {name} {index}"), seeds)


def read(module: ModuleType, data: bytes, folder: Path) -> str | None:
    """What went wrong in a way that nobody foresaw: the exception and where in this project it came from."""
    try:
        module.parse(data, folder)
    except SmolEdgeError as error:
        if len(str(error)) > 1100 or not str(error):
            return f"a message of {len(str(error))} characters: {type(error).__name__}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - tokenizers' panic is one
        frames = [each for each in traceback.extract_tb(error.__traceback__) if "site-packages" not in each.filename]
        ours = [each for each in frames if "/tests/" not in each.filename] or frames
        place = f"{'/'.join(Path(ours[-1].filename).parts[-2:])}:{ours[-1].lineno}"
        return f"{type(error).__name__} in {place}"
    return None


def work(name: str, seed: int, start: int, end: int, at: Any, found: Connection) -> None:
    """Read the inputs from `start` to before `end`; `at` holds the one that is read now."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics print
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        module = parser(name)
        seeds = module.seeds(folder)
        assert seeds, "nothing to damage"
        unit = 1 if sys.platform == "darwin" else 1024
        for index in range(start, min(end, start + IN_A_PROCESS)):
            at.value = index
            wrong = read(module, make(name, seed, index, seeds), folder)
            if wrong:
                found.send((index, wrong))
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > LARGEST_RSS:
                found.send((index, "more than 1 GB of memory"))
                return  # the peak stays: the next input needs another process
