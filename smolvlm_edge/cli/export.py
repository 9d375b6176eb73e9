"""`smol-edge export`."""

import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from smolvlm_edge.bundle import Bundle, Target
from smolvlm_edge.bundle.formats import ADAPTER, CHECKPOINT, Kind
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.cli.options import OfflineOption, Quant, complete_model, export_progress
from smolvlm_edge.errors import ExportError, RequestError
from smolvlm_edge.generation.timings import peak_rss_bytes
from smolvlm_edge.store import Source, fetch, resolve

if TYPE_CHECKING:
    from smolvlm_edge.quantize import Recipe

Targets = Literal["onnx", "openvino", "both"]
VisionFormat = Literal["fp32", "int8", "int8-static", "int8-weights", "int4"]
Layout = Literal["bundle", "optimum", "transformers.js"]
Calibration = Path | Literal["bundled"] | None


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder with config.json, *.safetensors and the tokenizer; or a name (`smol-edge models list`).",
            autocompletion=complete_model,
        ),
    ],
    quant: Annotated[Quant | None, typer.Option(help="Number format of the weights.", show_default="int4")] = None,
    vision: Annotated[
        VisionFormat | None, typer.Option(help="Number format of the vision encoder, if not that of --quant.")
    ] = None,
    target: Annotated[
        Targets | None,
        typer.Option(help="What the graphs are for: ONNX Runtime, OpenVINO or both.", show_default="onnx"),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="Who reads the folder: smol-edge, optimum-intel, or transformers.js in a browser.")
    ] = "bundle",
    adapter: Annotated[
        str | None, typer.Option(help="A PEFT LoRA adapter to merge in: a folder, or 'owner/name'.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Folder of pictures and texts that int4 is fitted to; 'bundled', or 'none': sooner, worse.",
            show_default="bundled",
        ),
    ] = None,
    target_mb: Annotated[
        float | None,
        typer.Option(min=0, help="Megabytes that the bundle may take: more than int4 needs goes where it helps most."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="bundle.json of a bundle, or its `recipe`: do the same again.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make.", show_default="./CHECKPOINT-QUANT or ./ADAPTER-QUANT")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    offline: OfflineOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a Hugging Face checkpoint into a bundle of graphs.

    Example: smol-edge export ./SmolVLM-256M-Instruct --quant int4 --out ./smolvlm-256m-int4
    Example: smol-edge export smolvlm-256m --quant int8 --target openvino
    Example: smol-edge export smolvlm-2.2b --adapter ./my-lora
    Example: smol-edge export smolvlm-256m --target-mb 220 --calibrate ./my-photos
    Example: smol-edge export smolvlm-256m --layout optimum --out ./for-optimum-intel
    Example: smol-edge export smolvlm-256m --adapter ./my-lora --layout transformers.js --out ./for-the-browser
    """
    try:
        from smolvlm_edge.export import (  # noqa: PLC0415 - an extra, and slow
            Adapter,
            check_output,
            check_targets,
            export_checkpoint,
        )
        from smolvlm_edge.export.layouts import LAYOUTS, check_layout_output, export_as  # noqa: PLC0415
        from smolvlm_edge.quality import TextFidelity  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExportError.of_missing("exporting needs", error.name, "export") from error
    source, tuned = resolve(checkpoint), resolve(adapter) if adapter else None
    chosen, calibration = _recipe(quant, vision, recipe, calibrate)
    out = out or Path(f"{_short_name(tuned or source)}-{chosen.name}")
    arrangement = LAYOUTS.get(layout)
    if arrangement and target not in {None, arrangement.target}:
        raise RequestError(f"--layout {layout} takes graphs for {arrangement.target}: leave out --target {target}")
    default: Target = arrangement.target if arrangement else "onnx"
    targets = get_args(Target) if target == "both" else (target or default,)
    check_targets(targets)
    if arrangement:
        arrangement.check_recipe(chosen)
    check = partial(check_layout_output, arrangement) if arrangement else check_output
    check(out.resolve(), force=force)
    adapter_folder = _folder(tuned, ADAPTER, offline=offline) if tuned else None
    if adapter_folder:
        Adapter.open(adapter_folder)  # what cannot be merged is refused before the base is fetched
    folder = _folder(source, CHECKPOINT, offline=offline)
    start = time.perf_counter()
    with export_progress() as progress:
        make = partial(export_as, arrangement) if arrangement else partial(export_checkpoint, targets=targets)
        make(
            folder,
            out,
            chosen,
            adapter=adapter_folder,
            calibration=calibration,
            target_bytes=None if target_mb is None else round(target_mb * 1e6),
            force=force,
            progress=progress,
        )
    size_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    lost = None if arrangement else Bundle.open(out).lost
    export_s = round(time.perf_counter() - start, 3)
    if as_json:
        report = {
            "out": str(out),
            "quant": chosen.name,
            "targets": targets,
            "size_bytes": size_bytes,
            "export_s": export_s,
            "lost": lost,
        }
        print(json.dumps({**report, "peak_rss_bytes": peak_rss_bytes()}))
        return
    print(out)
    if lost is not None:
        print(TextFidelity.from_dict(lost), file=sys.stderr)
    if arrangement:
        return
    print(f"{size_bytes / 1e6:.0f} MB in {export_s:.1f} s. Try it:", file=sys.stderr)
    print(f"  smol-edge run photo.jpg 'Describe this image.' --model {shlex.quote(str(out))}", file=sys.stderr)


def _recipe(
    quant: Quant | None, vision: VisionFormat | None, file: Path | None, calibrate: str | None
) -> "tuple[Recipe, Calibration]":
    """The recipe and the calibration set that the options mean."""
    from smolvlm_edge.quantize import RECIPES, Recipe, with_vision  # noqa: PLC0415 - an extra

    known: dict[str, Calibration] = {"bundled": "bundled", "none": None}
    if file is None:
        chosen = RECIPES[quant or "int4"]
        chosen = chosen if vision is None else with_vision(chosen, vision)
        return chosen, known.get(calibrate or "bundled", Path(calibrate or ""))
    if quant is not None or vision is not None:
        raise RequestError("--recipe says which numbers get which format: leave out --quant and --vision")
    values = read_json(file)
    try:
        values = values.get("recipe", values)
        recipe, calibrated = Recipe.from_dict(values), str(values.get("calibration", "bundled"))
    except (ValueError, AttributeError) as error:
        raise RequestError(f"{file} is neither a bundle.json nor a recipe: {error}") from error
    if calibrate is None and calibrated not in known:
        raise RequestError(f"that recipe was fitted to a folder {calibrated!r}: name it with --calibrate")
    return recipe, known.get(calibrate or calibrated, Path(calibrate or ""))


def _folder(source: Path | Source, kind: Kind, *, offline: bool) -> Path:
    return source if isinstance(source, Path) else fetch(source, kind, offline=offline)


def _short_name(source: Path | Source) -> str:
    return source.resolve().name if isinstance(source, Path) else source.name.partition("@")[0].rpartition("/")[2]
