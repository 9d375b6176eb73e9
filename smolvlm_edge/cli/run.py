"""`smol-edge run`."""

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm_edge.cli.cut_off import say_if_cut_off
from smolvlm_edge.cli.groups import ModelOptions, SamplingOptions, grouped
from smolvlm_edge.cli.lines import as_json_line, printable
from smolvlm_edge.cli.options import DetailOption, LongestEdgeOption, TileBar, seconds
from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.conversation.request import check_request
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.generation.answer import Chunk, GenerateOptions
from smolvlm_edge.graphs.choice import Choice
from smolvlm_edge.pictures.sources import MAX_FILE_BYTES
from smolvlm_edge.pictures.video import as_video

MOST_SCHEMA_BYTES = 1 << 20


@grouped
def run(
    images: Annotated[
        list[str],
        typer.Argument(
            default_factory=list,
            show_default=False,
            help="Pictures, videos, animated GIFs, folders of numbered frames; - reads one file from stdin.",
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="What to do with them, for example 'describe'.")],
    *,
    named: ModelOptions,
    sampling: SamplingOptions,
    detail: DetailOption = "high",
    longest_edge: LongestEdgeOption = None,
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frames to take of a video.", show_default="one a second, at most 64, or what the model says"
        ),
    ] = None,
    start: Annotated[
        float | None, typer.Option(help="Where in a video to begin, in seconds or MM:SS.", parser=seconds)
    ] = None,
    end: Annotated[
        float | None, typer.Option(help="Where in a video to end, in seconds or MM:SS.", parser=seconds)
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of a folder of frames.")] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answer in JSON that fulfils the JSON Schema in this file.")
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="Answer with a text that this regular expression matches as a whole.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option(metavar="A,B,...", help='Answer with one of these; "" around one with a comma.')
    ] = None,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Bring such an answer to a valid end within --max-tokens, instead of failing."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with text, timings and the stamps of videos.")
    ] = False,
) -> None:
    """Answer a prompt about pictures or videos; without one, about nothing but the prompt.

    Example: smol-edge run examples/shapes.png describe
    Example: smol-edge run photo.jpg "Describe this image." --model smolvlm-256m --quant int8
    Example: smol-edge run examples/shapes.png "Is there a red circle?" --choices yes,no
    Example: smol-edge run clip.mp4 "What happens?" --model smolvlm2-500m --start 1:30 --end 2:00
    """
    if prompt == "-" or os.path.isfile(prompt):
        raise RequestError(f"the last argument must be the prompt, but {prompt} is a file: add one, as in 'describe'")
    if images.count("-") > 1:
        raise RequestError("only one picture can come from stdin, but - was given more than once")
    sources: list[Source] = [_stdin() if image == "-" else image for image in images]
    wishes = {"frames": frames, "start": start, "end": end, "fps": fps}
    sources = _with_wishes(sources, {name: wish for name, wish in wishes.items() if wish is not None})
    options: GenerateOptions = {**sampling.to_generate(), "detail": detail, "longest_edge": longest_edge}
    options.update(form := _form(schema, regex, choices, complete=complete))
    in_one_piece = as_json or (bool(form) and not sys.stdout.isatty())  # half a JSON text is of no use to a program
    check_request(sources, prompt, options)
    named.tell()
    with named.load(named.find(), memory="low") as vlm, TileBar() as bar:
        chunks: list[Chunk] = []
        options["on_tile"] = bar.count
        for chunk in vlm.stream(sources, prompt, **options):
            bar.stop()  # the answer takes the bar's place
            if not in_one_piece:
                print(printable(chunk.text), end="", flush=True)
            chunks.append(chunk)
    if as_json:
        print(_to_json(chunks, vlm.choice))
    else:
        print("".join(chunk.text for chunk in chunks) if in_one_piece else "")
    say_if_cut_off(chunks[-1], options)


def _with_wishes(sources: list[Source], wishes: dict[str, Any]) -> list[Source]:
    """The sources, with what is to be taken of every video among them."""
    if not wishes:
        return sources
    videos = [as_video(source) for source in sources]
    if not any(videos):
        raise RequestError(f"--{min(wishes)} is about videos, and there is none")
    return [replace(video, **wishes) if video else source for source, video in zip(sources, videos, strict=True)]


def _form(schema: str | None, regex: str | None, choices: str | None, *, complete: bool) -> GenerateOptions:
    """The options for the form of the answer."""
    form: GenerateOptions = {}
    if schema is not None:
        form["schema"] = _schema(Path(schema))
    if regex is not None:
        form["regex"] = regex
    if choices is not None:
        form["choices"] = _choices(choices)
    if complete and not form:
        raise RequestError("--complete is about --schema, --regex and --choices, and there is none")
    if complete:
        form["on_limit"] = "complete"
    return form


def _choices(text: str) -> list[str]:
    try:
        return [choice for row in csv.reader(text.splitlines(keepends=True), skipinitialspace=True) for choice in row]
    except csv.Error as error:
        raise RequestError(f"--choices cannot be read: {error}") from error


def _schema(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_SCHEMA_BYTES + 1)
    except OSError as error:
        raise RequestError.of_file(path, error) from error
    if len(text) > MOST_SCHEMA_BYTES:
        raise RequestError(f"{path} holds more than the {MOST_SCHEMA_BYTES >> 20} MB that a schema may have")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise RequestError(f"{path} holds a schema that is too deep") from error
    except ValueError as error:
        raise RequestError(f"{path} holds no JSON: {error}") from error


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ImageError("stdin is closed, so it holds no picture")
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"stdin holds more than the {MAX_FILE_BYTES >> 20} MB that a picture may take")
    return data


def _to_json(chunks: list[Chunk], choice: Choice | None) -> str:
    text = "".join(chunk.text for chunk in chunks)
    last = chunks[-1]
    videos = [{"duration_s": round(video.duration, 3), "stamps": video.stamps} for video in last.videos]
    return as_json_line(
        {
            "text": text,
            "finish_reason": last.finish_reason,
            "videos": videos,
            **last.timings.to_dict(),
            "engines": choice and choice.to_dict(),
        }
    )
