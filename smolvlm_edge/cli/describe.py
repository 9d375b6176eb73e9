"""`smol-edge describe`."""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from smolvlm_edge.bundle import MANIFEST, Bundle, sha256
from smolvlm_edge.cli.groups import ModelOptions, SamplingOptions, grouped
from smolvlm_edge.cli.options import DetailOption, LongestEdgeOption, ParallelOption, counting_bar
from smolvlm_edge.cli.pictures import find_pictures
from smolvlm_edge.conversation.request import Request, check_request
from smolvlm_edge.errors import PartialError
from smolvlm_edge.generation.answer import DEFAULT_MAX_TOKENS, Answer, GenerateOptions
from smolvlm_edge.generation.timings import peak_rss_bytes
from smolvlm_edge.graphs.choice import choose_engines
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.pictures.sources import shown
from smolvlm_edge.records import Line, Records, check_place, open_records

MARK = "smol-edge describe"
"""Tells a file of captions from any other; its value is the version of the format."""


@grouped
def describe(
    pictures: Annotated[
        list[str], typer.Argument(show_default=False, help="Pictures, folders (all that is in them), or patterns.")
    ],
    out: Annotated[
        Path, typer.Option(show_default=False, help="JSON lines to write the answers to, and to continue from.")
    ],
    prompt: Annotated[str, typer.Option(help="What to do with every picture.")] = "Describe this image.",
    *,
    named: ModelOptions,
    sampling: SamplingOptions,
    detail: DetailOption = "high",
    longest_edge: LongestEdgeOption = None,
    parallel: ParallelOption = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Describe many pictures, each by itself. Stopped, the same command goes on where it was.

    The output's first line says what it was made with. Every other is an answer, or says why there is none, under
    the picture's path as seen from the output's folder. A later run tries pictures without an answer again.

    Example: smol-edge describe photos --out captions.jsonl --model smolvlm-256m --parallel auto
    Example: smol-edge describe "scans/**/*.png" --out texts.jsonl --prompt "Read the text." --detail low
    """
    options: GenerateOptions = {
        "max_tokens": DEFAULT_MAX_TOKENS,
        "detail": detail,
        "longest_edge": longest_edge,
        **sampling.to_generate(),
    }
    check_request([], prompt, options)
    check_place(out, "--out")
    wanted = {_name(path, out): path for path in find_pictures(pictures)}
    named.tell()
    folder = named.find()
    bundle = Bundle.open(folder)
    named = replace(named, engine=str(choose_engines(bundle, named.engine, named.threads)))
    begin = {
        MARK: 1,
        "model": bundle.source,
        "quant": bundle.recipe["name"],
        "engine": named.engine,
        "bundle": sha256(folder / MANIFEST),
        "prompt": prompt,
        **options,
    }
    start, failed = time.perf_counter(), 0
    with open_records(
        out, begin, "--out", _is_result, lambda line: "text" in line or line["file"] not in wanted
    ) as kept:
        known = {line["file"] for line in kept.lines}
        missing = {name: path for name, path in wanted.items() if name not in known}
        if missing:
            with named.load(folder, parallel=parallel) as vlm, counting_bar("picture") as bar:
                bar.add_task("", total=len(wanted), completed=len(wanted) - len(missing))
                failed = _describe_all(vlm, missing, prompt, options, kept, bar)
    counts = {"described": len(missing) - failed, "failed": failed, "before": len(wanted) - len(missing)}
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        print(json.dumps({**counts, "seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}))
    else:
        print(f"{', '.join(f'{count} {what}' for what, count in counts.items())}: {out}")
    if failed:
        raise PartialError(f"{failed} of {len(wanted)} pictures failed: {out} says why; a later run tries them again")


def _describe_all(
    vlm: SmolVLM, pictures: Mapping[str, Path], prompt: str, options: GenerateOptions, records: Records, bar: Progress
) -> int:
    """Write a line for every picture; how many of them failed."""
    failed = 0
    requests = (Request(images=path, prompt=prompt) for path in pictures.values())
    try:
        with closing(vlm.generate_many(requests, **options)) as answers:
            for (name, path), answer in zip(pictures.items(), answers, strict=True):
                if isinstance(answer, Answer):
                    records.add({"file": name, "text": answer.text, "finish_reason": answer.finish_reason})
                else:
                    failed += 1
                    records.add({"file": name, "error": (why := str(answer) or type(answer).__name__)})
                    said = why if shown(path) in why else f"{shown(path)}: {why}"
                    bar.console.print(f"failed: {said}", markup=False, highlight=False, soft_wrap=True)
                bar.advance(bar.task_ids[0])
    except KeyboardInterrupt:
        bar.stop()
        print(
            f"note: {bar.tasks[0].completed} of {bar.tasks[0].total} are done; the same command goes on",
            file=sys.stderr,
        )
        raise
    return failed


def _name(picture: Path, out: Path) -> str:
    """What a picture is called in the output, wherever that is written from."""
    try:
        return Path(os.path.relpath(picture, out.parent)).as_posix()
    except ValueError:  # on another drive
        return picture.absolute().as_posix()


def _is_result(line: Line) -> bool:
    return isinstance(line.get("file"), str) and any(isinstance(line.get(key), str) for key in ("text", "error"))
