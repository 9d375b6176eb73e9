"""Options that several commands take, and the model that they mean."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from smolvlm_edge.bundle import Wanted
from smolvlm_edge.generation.answer import DEFAULT_MAX_TOKENS
from smolvlm_edge.generation.network import Memory
from smolvlm_edge.generation.width import Parallel
from smolvlm_edge.graphs.choice import wanted_targets
from smolvlm_edge.graphs.engines import AUTO
from smolvlm_edge.model import MAX_THREADS
from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.store import DEFAULT_VARIABLE, DEMO
from smolvlm_edge.store.bundles import Plan, locate
from smolvlm_edge.store.lockfile import locked_models

Quant = Literal["fp32", "int8", "int4"]

DEMO_NOTE = (
    "note: the bundled demonstration model knows drawn shapes, short texts and simple charts; "
    "for photographs use --model smolvlm-256m"
)


def complete_model(typed: str) -> list[str]:
    """Short names of models that begin with what was typed."""
    return [name for name in (DEMO, *locked_models()) if name.startswith(typed)]


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"A bundle's folder, or a name: {', '.join((DEMO, *locked_models()))}, OWNER/NAME or OWNER/NAME@REVISION.",
        envvar=DEFAULT_VARIABLE,
        show_default=DEMO,
        autocompletion=complete_model,
    ),
]
QuantOption = Annotated[Quant, typer.Option("--quant", help="Number format of a model that is named.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Open no connection.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Download and export without asking.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes: auto, onnxruntime, openvino, or vision=ENGINE,decoder=ENGINE.",
        metavar="ENGINE",
    ),
]
EngineSettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        help="A setting of an engine, as in openvino.KV_CACHE_PRECISION=u8; may be repeated.",
        metavar="ENGINE.KEY=VALUE",
    ),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Open graphs that smol-edge would not have written; only of people you trust.")
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", help="Longest answer.", show_default=str(DEFAULT_MAX_TOKENS))
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature", help="0 always takes the likeliest token.", show_default="what the model says, else 0"
    ),
]
TopKOption = Annotated[int | None, typer.Option("--top-k", help="Sample among the K likeliest tokens; 0 is all.")]
TopPOption = Annotated[
    float | None,
    typer.Option("--top-p", help="Sample among the likeliest tokens that together reach this probability."),
]
MinPOption = Annotated[
    float | None,
    typer.Option("--min-p", help="Sample among tokens with at least this share of the likeliest's probability."),
]
RepetitionPenaltyOption = Annotated[
    float | None,
    typer.Option("--repetition-penalty", help="Above 1, tokens that were there before are less likely."),
]
StopOption = Annotated[
    list[str] | None, typer.Option("--stop", help="A text that ends the answer; may be given more than once.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Makes a sampled answer repeatable.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, max=MAX_THREADS, help="Threads of the engine.", show_default="available processors"
    ),
]
DetailOption = Annotated[
    Detail,
    typer.Option(
        "--detail",
        help="Tiles of a picture: low, one, soonest and coarsest; auto, what its pixels fill; high, the model's rules.",
    ),
]
LongestEdgeOption = Annotated[
    int | None,
    typer.Option(
        "--longest-edge",
        help="Pixels of the longer side before splitting; fewer are faster.",
        show_default="the model's",
    ),
]
ParallelOption = Annotated[
    str,
    typer.Option(
        "--parallel",
        metavar="N|auto",
        help="How many to answer at once; auto goes by memory and processors, as `smol-edge doctor` tells.",
    ),
]
MemoryOption = Annotated[
    Memory,
    typer.Option("--memory", help="low: vision encoder and decoder are never open together; slower with new pictures."),
]


def parallel_number(text: str) -> Parallel:
    """What --parallel says; what is no number is refused by `SmolVLM.load`."""
    return int(text) if text.isdecimal() else cast("Parallel", text)


def seconds(time: str) -> float:
    """A time as seconds, MM:SS or H:MM:SS."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", time):
        raise typer.BadParameter(f"{time!r} is no time: give seconds or MM:SS")
    return reduce(lambda total, part: 60 * total + float(part), time.split(":"), 0.0)


def find_model(model: str | None, quant: Quant, engine: str = AUTO, *, offline: bool, yes: bool) -> Path:
    """The bundle that the options mean; on a terminal, asks before a download and shows its progress."""
    return find_bundle(model, quant, wanted_targets(engine), offline=offline, yes=yes)


def find_bundle(model: str | None, quant: Quant, wanted: Wanted, *, offline: bool, yes: bool) -> Path:
    """As `find_model`, for graphs that no engine has to be named for."""

    def agree(plan: Plan) -> bool:
        print(f"note: {plan}", file=sys.stderr)
        return yes or (sys.stdin.isatty() and sys.stderr.isatty() and _confirmed())

    with export_progress() as progress:
        return locate(model, quant, wanted, offline=offline, agree=agree, progress=progress)


def _confirmed() -> bool:
    try:
        return typer.confirm("Continue?", err=True)
    except typer.Abort:  # Ctrl-C
        raise KeyboardInterrupt from None


class _Bar(Progress):
    """On stderr, if that can show a bar; else nothing at all is written."""

    def __init__(self, *columns: ProgressColumn, speed_estimate_period: float = 30.0) -> None:
        console = Console(stderr=True)
        super().__init__(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_interactive,
            speed_estimate_period=speed_estimate_period,
        )

    def stop(self) -> None:
        """Stop; Rich before 14.3 writes an empty line for a bar that never was."""
        if not self.disable:
            super().stop()


@contextmanager
def export_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, if that is a terminal, that appears with the first layer that is written."""
    bars = _Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    task = bars.add_task("", total=None)

    def on_layer(graph: str, done: int, total: int) -> None:
        bars.start()
        bars.update(task, description=graph, completed=done, total=total)

    try:
        yield on_layer
    finally:
        bars.stop()


def counting_bar(noun: str) -> Progress:
    """A bar on stderr, if that can show one, that counts what is done and says how long the rest takes."""
    columns = (TextColumn(noun), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # an estimate from the last ten minutes: there may be a minute between two steps
    return _Bar(*columns, speed_estimate_period=600)


class TileBar(_Bar):
    """A bar on stderr, if that can show one, that counts the tiles of pictures; stop it when the answer begins."""

    def __init__(self) -> None:
        super().__init__(TextColumn("tile"), BarColumn(), MofNCompleteColumn())
        self._tiles = self.add_task("", visible=False)

    def count(self, done: int, total: int) -> None:
        """Show how many tiles are encoded."""
        self.update(self._tiles, completed=done, total=total, visible=True)
