"""`smol-edge bench`."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from smolvlm_edge.bundle import Bundle, Wanted
from smolvlm_edge.cli.groups import MakingOptions, grouped
from smolvlm_edge.cli.options import ThreadsOption, complete_model
from smolvlm_edge.demo.scenes import draw, scenes
from smolvlm_edge.diagnosis.measuring import Run, answer_command, answer_seconds, cell, fastest, medians, take_turns
from smolvlm_edge.errors import RequestError
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import combinations
from smolvlm_edge.graphs.engines import REMEDIES, TARGETS, installed
from smolvlm_edge.machine import installed_version, processor_name
from smolvlm_edge.pictures.images import check_image
from smolvlm_edge.store.measured import remember

PROMPT = "Describe this image."


@grouped
def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A bundle's folder, or a name.", show_default="the demonstration model", autocompletion=complete_model
        ),
    ] = None,
    *,
    making: MakingOptions,
    picture: Annotated[Path | None, typer.Option(help="What is asked about.", show_default="a drawn scene")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Longest answer.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Of every engine; medians are shown.")] = 3,
    threads: ThreadsOption = None,
    store: Annotated[
        bool, typer.Option("--store", help="Let --engine auto take the fastest from now on, for such bundles.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure on this machine what a picture and an answer cost, on every engine and on mixtures of them.

    Every answer has a process of its own, and the engines take turns; nothing else should run meanwhile.

    Example: smol-edge bench smolvlm-256m --store
    Example: smol-edge bench ./smolvlm-256m-both --picture photo.jpg --runs 5
    """
    if picture is not None:
        check_image(picture)
    targets = tuple(TARGETS[engine] for engine in installed())
    bundle = Bundle.open(making.find(model, Wanted(targets, targets)))
    engines = combinations(bundle)
    if store and len(engines) == 1:
        raise RequestError(f"there is nothing to choose from: {_why_alone(bundle)}")
    threads = threads or available_cores()
    with TemporaryDirectory(prefix="smol-edge-") as temporary:
        shown = picture or _drawn(Path(temporary))
        commands = {
            engine: answer_command(
                str(bundle.folder.resolve()), str(shown), PROMPT, engine=engine, tokens=tokens, threads=threads
            )
            for engine in engines
        }
        results = _measure(commands, runs)
    seconds = {engine: answer_seconds(each, tokens) for engine, each in results.items()}
    best = fastest(seconds)
    stored = remember(bundle, threads, best) if store else None
    about = {
        "processor": processor_name(),
        "threads": threads,
        "versions": {name: installed_version(name) for name in ("smol-edge", *installed())},
        "bundle": str(bundle.folder),
        "recipe": bundle.recipe["name"],
        "runs": runs,
        **{name: next(iter(results.values()))[-1][name] for name in ("tiles", "prompt_tokens")},
        "tokens": tokens,
    }
    if as_json:
        rows = {
            engine: {**medians(each), "answer s": seconds[engine], "runs": each} for engine, each in results.items()
        }
        print(json.dumps({**about, "engines": rows, "fastest": best, "stored": stored and str(stored)}))
        return
    _print(about, {engine: {**medians(each), "answer s": seconds[engine]} for engine, each in results.items()}, best)
    if len(engines) == 1:
        print(f"note: {_why_alone(bundle)}", file=sys.stderr)
    if stored:
        print(f"note: kept in {stored}: --engine auto goes by it", file=sys.stderr)


def _drawn(folder: Path) -> Path:
    path = folder / "scene.png"
    scene = next(scenes(1, held_out=True, weights={"describing": 1.0}))
    draw(scene.sketches[0]).save(path)
    return path


def _measure(commands: dict[str, Any], runs: int) -> dict[str, list[Run]]:
    console = Console(stderr=True)
    if not console.is_interactive:
        return take_turns(commands, runs)
    with console.status("") as status:
        return take_turns(commands, runs, on_run=status.update)


def _print(about: dict[str, Any], rows: dict[str, dict[str, float | None]], best: str) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    console.print(f"{about['processor']}, {about['threads']} threads, {versions}")
    console.print(
        f"{about['bundle']} ({about['recipe']}): {about['tiles']} tiles, {about['prompt_tokens']} prompt tokens, "
        f"{about['tokens']} generated at most; medians of {about['runs']} runs taken in turns\n"
    )
    columns = (Column(name, justify="right") for name in next(iter(rows.values())))
    table = Table(Column("engine", no_wrap=True), *columns, box=None, pad_edge=False)
    for engine, values in rows.items():
        table.add_row(engine, *map(cell, values.values()))
    console.print(table)
    if len(rows) > 1:
        console.print(f"\nfastest answer: --engine {best}")


def _why_alone(bundle: Bundle) -> str:
    missing = [engine for engine in TARGETS if engine not in installed()]
    if missing:
        return f"{missing[0]} is not installed: {REMEDIES[missing[0]]}"
    return f"{bundle.folder} holds graphs for one engine: export the checkpoint with --target both"
