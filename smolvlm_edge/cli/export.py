"""`smol-edge export`."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from smolvlm_edge.errors import ExportError
from smolvlm_edge.timings import peak_rss_bytes

Quant = Literal["fp32", "int8", "int4"]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder with config.json, *.safetensors and the tokenizer.")],
    quant: Annotated[Quant, typer.Option(help="Number format of the weights.")] = "int4",
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT LoRA adapter to merge into it.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make.", show_default="./CHECKPOINT-QUANT or ./ADAPTER-QUANT")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a Hugging Face checkpoint into a bundle of ONNX graphs.

    Example: smol-edge export ./SmolVLM-256M-Instruct --quant int4 --out ./smolvlm-256m-int4

    With a fine-tune: smol-edge export ./SmolVLM-Instruct --adapter ./SmolVLM-Instruct-DPO
    """
    try:
        from smolvlm_edge.export import export_checkpoint  # noqa: PLC0415 - an extra, and slow to import
        from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExportError(f"exporting needs {error.name}: pip install 'smol-edge[export]'") from error
    out = out or Path(f"{(adapter or checkpoint).resolve().name}-{quant}")
    start = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checkpoint", total=None)

        def on_layer(graph: str, done: int, total: int) -> None:
            progress.update(task, description=graph, completed=done, total=total)

        export_checkpoint(checkpoint, out, RECIPES[quant], adapter=adapter, force=force, progress=on_layer)
    size_bytes = sum(file.stat().st_size for file in out.iterdir())
    export_s = round(time.perf_counter() - start, 3)
    if as_json:
        report = {"out": str(out), "quant": quant, "size_bytes": size_bytes, "export_s": export_s}
        print(json.dumps({**report, "peak_rss_bytes": peak_rss_bytes()}))
        return
    print(out)
    print(f"{size_bytes / 1e6:.0f} MB in {export_s:.1f} s. Try it:", file=sys.stderr)
    print(f"  smol-edge run photo.jpg 'Describe this image.' --model {shlex.quote(str(out))}", file=sys.stderr)
