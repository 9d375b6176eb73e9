"""Asking a system one question in a process of its own, and what that process took."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from systems import System
from tokenizers import Encoding

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import table_row
from smolvlm_edge.machine import processor_features

Run = dict[str, Any]
"""A peer's report (see peers/protocol.py) with peak_rss_bytes, cpu_s and, if readable, energy_j."""
RAPL = Path("/sys/class/powercap")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
FLAGS = {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16", "sve"}
"""Of the processor's extensions, those that engines choose their kernels by."""


class Failed(Exception):  # noqa: N818 - no mistake of this program
    """A system gave no answer; says why."""


@dataclass(frozen=True)
class Question:
    """What every system is asked."""

    name: str
    pictures: tuple[str, ...]
    prompt: str
    rendered: str
    tokens: int
    threads: int
    split: bool = True

    def request(self, system: System) -> str:
        """For the system's command."""
        fields = ("pictures", "prompt", "rendered", "tokens", "threads", "split")
        return json.dumps({"model": system.model} | {name: getattr(self, name) for name in fields})


class Asker:
    """Writes questions for a checkpoint: the same text for all systems, in its chat template."""

    def __init__(self, checkpoint: Path, tokens: int, threads: int) -> None:
        self._encoder = PromptEncoder(checkpoint, ModelConfig.from_folder(checkpoint))
        self._tokens, self._threads = tokens, threads

    def about(self, name: str, pictures: Sequence[Path], prompt: str, *, split: bool = True) -> Question:
        """A question about pictures, which stand before it."""
        content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": prompt}]
        rendered = self._encoder.render([{"role": "user", "content": content}])
        paths = tuple(str(picture.absolute()) for picture in pictures)
        return Question(name, paths, prompt, rendered, self._tokens, self._threads, split)

    def of_depth(self, depth: int) -> Question:
        """A text that has that many tokens with its template, to be gone on with; at least one besides it."""
        prose = (files("smolvlm_edge.quality") / "prose.txt").read_text("utf-8")
        frame = len(self._encoding(self.about("", (), "a").rendered).ids) - len(self._encoding("a").ids)
        room = max(1, depth - frame)
        while len((encoding := self._encoding(prose)).ids) < room:
            prose += prose
        return self.about(f"depth {depth}", (), prose[: encoding.offsets[room - 1][1]])

    def _encoding(self, text: str) -> Encoding:
        return self._encoder.tokenizer.encode(text, add_special_tokens=False)


def run(system: System, question: Question, timeout: int) -> Run:
    """One question in a process of its own.

    Raises:
        Failed: It took too long, exited with an error or printed no report; with the last line that it said.
    """
    command = [*map(str, system.command), question.request(system)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        energy = _energy()
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        spent = [after - before for before, after in zip(energy, _energy(), strict=True)]
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        said, complaint = out.read().strip().splitlines(), errors.read().strip().splitlines()
    if process.returncode:
        late = process.returncode == -9 and "no answer in time, or killed for want of memory"
        raise Failed(late or (complaint or [f"exit code {process.returncode}"])[-1])
    try:
        report = json.loads(said[-1])
    except (IndexError, ValueError):
        raise Failed("printed no report") from None
    # a child's peak is never less than what its parent held when it began: 100 MB here, less than any system takes
    report |= {"peak_rss_bytes": used.ru_maxrss * RSS_UNIT, "cpu_s": used.ru_utime + used.ru_stime}
    if spent and min(spent) >= 0:  # a counter that began again tells nothing
        report["energy_j"] = sum(spent) / 1e6
    return report


def _energy() -> list[int]:
    """Microjoules of every processor package so far; empty where the system does not tell."""
    try:
        return [int((package / "energy_uj").read_text()) for package in sorted(RAPL.glob("intel-rapl:?"))]
    except OSError:
        return []


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """With that many other processes that compute without end, one thread each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "class": processor_class(),
        "features": processor_features(),
        "extensions": sorted(FLAGS.intersection((_cpuinfo("flags") or _cpuinfo("Features")).split())),
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }
    if not _energy():
        found["energy"] = f"not readable: no {RAPL}/intel-rapl:*/energy_uj"
    return found


def processor_class() -> str:
    """The row of the table in graphs/choice.py; where none was measured, with what the processor has."""
    row = table_row()
    return row.processor if row.features else ", ".join((row.processor, *processor_features()))


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def median(runs: Sequence[Run], field: str) -> float | None:
    """Of a field's values; None where a system does not tell."""
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def spread(runs: Sequence[Run], field: str) -> tuple[float, float] | None:
    """Smallest and largest."""
    values = [run[field] for run in runs if run.get(field) is not None]
    return (min(values), max(values)) if values else None
