"""Runs the children, and ends those that hang."""

import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.fuzz.child import work

LONGEST_SECONDS = 5.0
"""Of the processor, for one input."""
PARSERS = sorted(path.stem for path in (Path(__file__).parent / "parsers").glob("[a-z]*.py"))


@dataclass
class Report:
    """What came of a parser's inputs."""

    inputs: int = 0
    findings: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """What went wrong, and with which inputs."""


def fuzz(name: str, inputs: int, seed: int) -> Report:
    """Read so many damaged inputs with one parser."""
    report, context, start = Report(), get_context("spawn"), 0
    while start < inputs:
        at, (ours, theirs) = context.Value("q", -1), context.Pipe(duplex=False)
        child = context.Process(target=work, args=(name, seed, start, inputs, at, theirs), daemon=True)
        child.start()
        theirs.close()
        wrong = _watch(child, at, partial(_take, ours, report))
        if wrong:
            report.findings[wrong].append(at.value)
        if at.value < start:
            raise RuntimeError(f"the parser {name} does not start: {wrong}")
        start = at.value + 1
    report.inputs = inputs
    return report


def _watch(child: BaseProcess, at: Any, take: Callable[[], None]) -> str | None:
    """Wait for a child, and take what it finds; why it did not get to its end."""
    index, begun = -1, 0.0
    while child.is_alive():
        child.join(0.2)
        take()
        spent = _processor_seconds(child.pid)
        if at.value != index:
            index, begun = at.value, spent
        elif index >= 0 and spent - begun > LONGEST_SECONDS:
            child.kill()
            child.join()
            take()
            return f"more than {LONGEST_SECONDS:g} s"
    take()
    return f"the process ended with {child.exitcode}" if child.exitcode else None


def _take(connection: Connection, report: Report) -> None:
    with suppress(EOFError, OSError):
        while connection.poll():
            index, what = connection.recv()
            report.findings[what].append(index)


def _processor_seconds(pid: int | None) -> float:
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it is gone, or this system does not tell
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
