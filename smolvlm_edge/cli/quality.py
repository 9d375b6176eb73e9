"""`smol-edge quality`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.cli.lines import as_json_line
from smolvlm_edge.cli.options import (
    EngineOption,
    OfflineOption,
    QuantOption,
    ThreadsOption,
    export_progress,
    find_model,
)
from smolvlm_edge.cli.reference import reference_bundle
from smolvlm_edge.errors import ExportError, RequestError
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import check_engines, choose_engines
from smolvlm_edge.graphs.engines import AUTO, open_engines

WORST = 5
WIDTH = 1000  # of a table at most: a long line wraps, where a narrow column would cut names off


def quality(
    bundles: Annotated[list[str], typer.Argument(help="Folders of bundles, or names of models that have one here.")],
    against: Annotated[
        str, typer.Option(help="The reference: a bundle in fp32, or the checkpoint, by its folder or name.")
    ],
    quant: QuantOption = "int4",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text to read.", show_default="the package's prose")] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="A picture or a folder of them; may be repeated.", show_default="four drawn scenes"),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What is asked about every picture.")] = "Describe this image.",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    text_only: Annotated[bool, typer.Option("--text-only", help="Leave pictures out, which take longest.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help=f"List all matrices, not the {WORST} worst.")] = False,
    plot: Annotated[Path | None, typer.Option(help="SVG to draw: KL divergence against megabytes.")] = None,
    engine: EngineOption = AUTO,
    threads: ThreadsOption = None,
    offline: OfflineOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what quantisation cost: bundles beside the same model in fp32.

    Example: smol-edge quality ./smolvlm-256m-int4 --against ./SmolVLM-256M-Instruct
    Example: smol-edge quality ./int8 ./int4 --against ./fp32 --images photos --plot quality.svg
    """
    try:
        from smolvlm_edge import quality as measuring  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise ExportError.of_missing("measuring quality needs", error.name, "export") from error
    if plot is not None and not (plot.suffix == ".svg" and plot.parent.is_dir()):
        raise RequestError(f"--plot {plot}: name a file that ends in .svg, in a folder that exists")
    if text_only and images:
        raise RequestError("--text-only leaves pictures out: give it or --images")
    chosen = {
        _label(name, bundles): Bundle.open(find_model(name, quant, engine, offline=True, yes=False)) for name in bundles
    }
    first, *others = chosen.values()
    choice = choose_engines(first, engine, threads)
    for other in others:
        check_engines(other, choice)
    engines = open_engines(choice.vision.engine, choice.decoder.engine, threads or available_cores())
    read = measuring.Text.from_file(text, first) if text else measuring.Text.default(first)
    shown = [] if text_only else measuring.pictures_from(images) if images else measuring.drawn_pictures()
    with reference_bundle(against, choice, offline=offline) as reference, export_progress() as progress:
        found = measuring.measure(
            chosen, reference, read, shown, engines, prompt=prompt, max_tokens=max_tokens, progress=progress
        )
    if as_json:
        read_as = {"text": read.name, "window": measuring.WINDOW}
        about = {"reference": against, "engine": str(choice), **read_as, "prompt": prompt, "max_tokens": max_tokens}
        print(as_json_line({**about, "bundles": [each.to_dict() for each in found]}))
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False, width=WIDTH)
        console.print(f"text      {read.name}, {read.tokens:,} tokens in windows of {measuring.WINDOW}")
        if shown:
            console.print(
                f"pictures  {', '.join(each.name for each in shown)}: {prompt!r}, {max_tokens} tokens at most"
            )
        worst = (measuring.worst_tensors(each, None if tensors else WORST) for each in found)
        for table in (measuring.summary(found), *worst):
            console.print()
            console.print(table)
    if plot is not None:
        plot.write_text(measuring.plot(found), encoding="utf-8")


def _label(argument: str, arguments: list[str]) -> str:
    """The last part of a path, if that tells it from the others."""
    names = [Path(each).name for each in arguments]
    name = Path(argument).name
    return name if name and names.count(name) == 1 else argument
