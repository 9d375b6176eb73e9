"""Time and memory of whole answers.

Each has a process of its own, and they take turns, so that a machine that slows down slows all of them alike.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from smolvlm_edge.errors import EngineError

Run = dict[str, Any]
"""What `smol-edge run --json` prints: `timings.Timings` at least."""
Command = Sequence[str]
MARGIN = 0.05
"""By how much of its time the first system must be beaten: less is chance."""
COLUMNS: dict[str, Callable[[Run], float | None]] = {
    "load s": lambda run: run["load_ms"] / 1000,
    "encode one tile s": lambda run: _by(run["vision_ms"] / 1000, run["tiles"]),
    "prefill tok/s": lambda run: _by(run["prompt_tokens"], run["prefill_ms"] / 1000),
    "time to first token s": lambda run: run["ttft_ms"] / 1000,
    "decode tok/s": lambda run: run["decode_tokens_per_s"] or None,
    "peak RSS MB": lambda run: _by(run["peak_rss_bytes"], 1e6),
}
"""What is told of a run; None for what a system does not report."""


def answer_command(model: str, picture: str, prompt: str, *, engine: str, tokens: int, threads: int) -> Command:
    """The command that answers once and prints its cost."""
    options = ["--engine", engine, "--max-tokens", str(tokens), "--threads", str(threads), "--json"]
    return [sys.executable, "-m", "smolvlm_edge.cli", "run", picture, prompt, "--model", model, *options]


def take_turns(
    commands: Mapping[str, Command], runs: int, on_run: Callable[[str], None] = lambda _: None
) -> dict[str, list[Run]]:
    """Run every command in turn, that many times.

    Args:
        commands: Name -> command that prints one JSON object.
        runs: How often.
        on_run: Called with the name of what is run next.

    Raises:
        EngineError: A command failed, with the last line that it said.
    """
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            on_run(name)
            results[name].append(_run_once(name, command))
    return results


def _run_once(name: str, command: Command) -> Run:
    """One run in a process of its own."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise EngineError(f"{name}: {last.removeprefix('error: ')}")
    report: Run = json.loads(result.stdout.splitlines()[-1])
    return report


def medians(runs: Sequence[Run]) -> dict[str, float | None]:
    """Column -> median, as far as the runs tell."""
    values = {name: [value for run in runs if (value := column(run)) is not None] for name, column in COLUMNS.items()}
    return {name: median(found) if found else None for name, found in values.items()}


def cell(value: float | None) -> str:
    """A number for a table; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def answer_seconds(runs: Sequence[Run], tokens: int) -> float:
    """Median of the time from a question to the last of so many tokens, by the rate of those that were written.

    What has to be opened while answering counts; answers of different lengths compare.
    """
    times = []
    for run in runs:
        rate = run["decode_tokens_per_s"]
        times.append(run["ttft_ms"] / 1000 + ((tokens - 1) / rate if rate else 0.0))
    return median(times)


def fastest(seconds: Mapping[str, float]) -> str:
    """The system whose answer takes least; the first one unless it is beaten by `MARGIN`."""
    first, best = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < (1 - MARGIN) * seconds[first] else first


def _by(amount: float | None, by: float) -> float | None:
    """A ratio of what was reported; systems that do not tell a time say 0."""
    return amount / by if amount and by else None
