"""`smol-edge run`."""

import json
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from smolvlm_edge.cli.options import (
    EngineOption,
    ModelOption,
    NoSplitOption,
    OfflineOption,
    QuantOption,
    ThreadsOption,
    YesOption,
    find_model,
)
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.images import MAX_FILE_BYTES, ImageSource
from smolvlm_edge.model import DEFAULT_MAX_TOKENS, Chunk, GenerateOptions, SmolVLM, check_request

DEMO_NOTE = (
    "note: the bundled demonstration model knows drawn shapes, short texts and simple charts; "
    "for photographs use --model smolvlm-256m"
)


def run(
    images: Annotated[
        list[str], typer.Argument(default_factory=list, show_default=False, help="Pictures; - reads one from stdin.")
    ],
    prompt: Annotated[str, typer.Argument(help="What to do with them, for example 'describe'.")],
    model: ModelOption = None,
    quant: QuantOption = "int4",
    offline: OfflineOption = False,
    yes: YesOption = False,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = DEFAULT_MAX_TOKENS,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    no_split: NoSplitOption = False,
    longest_edge: Annotated[
        int | None,
        typer.Option(help="Pixels of the longer side before splitting; fewer are faster.", show_default="the model's"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with text and timings.")] = False,
) -> None:
    """Answer a prompt about pictures; without a picture, about nothing but the prompt.

    Example: smol-edge run examples/shapes.png describe
    Example: smol-edge run photo.jpg "Describe this image." --model smolvlm-256m --quant int8
    """
    if prompt == "-" or os.path.isfile(prompt):
        raise RequestError(f"the last argument must be the prompt, but {prompt} is a file: add one, as in 'describe'")
    if images.count("-") > 1:
        raise RequestError("only one picture can come from stdin, but - was given more than once")
    sources: list[ImageSource] = [_stdin() if image == "-" else image for image in images]
    options: GenerateOptions = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "split": False if no_split else None,
        "longest_edge": longest_edge,
    }
    check_request(sources, prompt, options)
    if model is None:
        print(DEMO_NOTE, file=sys.stderr)
    folder = find_model(model, quant, engine, offline=offline, yes=yes)
    console = Console(stderr=True)
    columns = (TextColumn("tile"), BarColumn(), MofNCompleteColumn())
    with (
        SmolVLM.load(folder, engine=engine, threads=threads, memory="low") as vlm,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("", visible=False)
        chunks: list[Chunk] = []
        options["on_tile"] = lambda done, total: progress.update(task, completed=done, total=total, visible=True)
        for chunk in vlm.stream(sources, prompt, **options):
            progress.stop()  # the answer takes the bar's place
            if not as_json:
                print(chunk.text, end="", flush=True)
            chunks.append(chunk)
    print(_to_json(chunks) if as_json else "")


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ImageError("stdin is closed, so it holds no picture")
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"stdin holds more than the {MAX_FILE_BYTES >> 20} MB that a picture may take")
    return data


def _to_json(chunks: list[Chunk]) -> str:
    text = "".join(chunk.text for chunk in chunks)
    return json.dumps(
        {"text": text, "finish_reason": chunks[-1].finish_reason, **chunks[-1].timings.to_dict()},
        ensure_ascii=False,
    )
