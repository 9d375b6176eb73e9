"""`smol-edge describe`."""

import json
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from smolvlm_edge.bundle import MANIFEST, Bundle, sha256
from smolvlm_edge.captions.output import Output
from smolvlm_edge.captions.places import Place, Source
from smolvlm_edge.captions.sidecars import Kind, Sidecars
from smolvlm_edge.captions.sources import find_sources
from smolvlm_edge.cli.groups import ModelOptions, SamplingOptions, grouped
from smolvlm_edge.cli.options import DetailOption, LongestEdgeOption, ParallelOption, counting_bar
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
        list[str],
        typer.Argument(
            show_default=False,
            help="Pictures, folders (all that is in them), patterns, or data sets: .parquet files and .tar shards.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            show_default=False,
            help="JSON lines to write the answers to, and to continue from; "
            "or .parquet or -000000.tar, with JSON lines beside it.",
        ),
    ],
    prompt: Annotated[str, typer.Option(help="What to do with every picture.")] = "Describe this image.",
    *,
    named: ModelOptions,
    sampling: SamplingOptions,
    detail: DetailOption = "high",
    longest_edge: LongestEdgeOption = None,
    parallel: ParallelOption = "1",
    column: Annotated[
        str | None,
        typer.Option(
            help="Where a data set has its pictures: a column of bytes or paths, or the ending of a shard's files.",
            show_default="found by type",
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="What a Parquet file's rows are called.", show_default="their numbers")
    ] = None,
    sidecars: Annotated[
        Kind | None, typer.Option(help="Write a file beside each picture too: photo.txt or photo.xmp.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what other sidecars say.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Describe many pictures, each by itself. Stopped, the same command goes on where it was.

    The output's first line says what it was made with. Every other is an answer, or says why there is none, under
    the picture's path as seen from the output's folder. A later run tries pictures without an answer again.

    Example: smol-edge describe photos --out captions.jsonl --model smolvlm-256m --parallel auto
    Example: smol-edge describe "scans/**/*.png" --out texts.jsonl --prompt "Read the text." --detail low
    Example: smol-edge describe train.parquet --id url --out captions.parquet
    Example: smol-edge describe photos --out captions.jsonl --sidecars xmp
    """
    options: GenerateOptions = {
        "max_tokens": DEFAULT_MAX_TOKENS,
        "detail": detail,
        "longest_edge": longest_edge,
        **sampling.to_generate(),
    }
    check_request([], prompt, options)
    check_place(out, "--out")
    output = Output.of(out)
    output.check()
    sources = find_sources(pictures, out.parent, column, id_column, output.owns)
    beside = Sidecars(sidecars, sources, force=force)
    wanted = dict.fromkeys(place for source in sources for place in source.places)
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
        "column": column,
        "id": id_column,
        **options,
    }
    start, done, failed = time.perf_counter(), 0, 0
    with open_records(
        output.record, begin, "--out", _is_result, lambda line: "text" in line or Place.of(line) not in wanted
    ) as kept:
        known = {Place.of(line): line.get("text", "") for line in kept.lines}
        missing = dict.fromkeys(place for place in wanted if place not in known)
        beside.catch_up(known)
        if missing:
            with named.load(folder, parallel=parallel) as vlm, counting_bar("picture") as bar:
                bar.add_task("", total=len(wanted), completed=len(wanted) - len(missing))
                requests = _Requests(sources, missing, prompt)
                done, failed = _describe_all(vlm, requests, options, kept, beside, bar)
        output.write(sources)
    counts = {"described": done, "failed": failed, "before": len(wanted) - len(missing)}
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        print(json.dumps({**counts, "seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}))
    else:
        print(f"{', '.join(f'{count} {what}' for what, count in counts.items())}: {out}")
    if failed:
        raise PartialError(
            f"{failed} of {len(wanted)} pictures failed: {output.record} says why; a later run tries them again"
        )


class _Requests:
    """A request for every picture that is missing, and whose picture it was once it is answered."""

    def __init__(self, sources: Sequence[Source], missing: Collection[Place], prompt: str) -> None:
        self._sources, self._missing, self._prompt = sources, missing, prompt
        self._asked: deque[tuple[Place, str]] = deque()

    def __iter__(self) -> Iterator[Request]:
        for source in self._sources:
            for place, picture in source.read(self._missing):
                self._asked.append((place, source.shown(place)))
                yield Request(images=picture, prompt=self._prompt)

    def answered(self) -> tuple[Place, str]:
        """Whose answer comes next, and what the user calls it."""
        return self._asked.popleft()


def _describe_all(
    vlm: SmolVLM, requests: _Requests, options: GenerateOptions, records: Records, beside: Sidecars, bar: Progress
) -> tuple[int, int]:
    """Write a line for every picture; how many of them were described, and how many failed."""
    done, failed = 0, 0
    try:
        with closing(vlm.generate_many(requests, **options)) as answers:
            for answer in answers:
                place, name = requests.answered()
                if isinstance(answer, Answer):
                    done += 1
                    records.add({**place.to_line(), "text": answer.text, "finish_reason": answer.finish_reason})
                    beside.write(place, answer.text)
                else:
                    failed += 1
                    records.add({**place.to_line(), "error": (why := str(answer) or type(answer).__name__)})
                    said = why if shown(name) in why else f"{shown(name)}: {why}"
                    bar.console.print(f"failed: {said}", markup=False, highlight=False, soft_wrap=True)
                bar.advance(bar.task_ids[0])
    except KeyboardInterrupt:
        bar.stop()
        print(
            f"note: {bar.tasks[0].completed} of {bar.tasks[0].total} are done; the same command goes on",
            file=sys.stderr,
        )
        raise
    return done, failed


def _is_result(line: Line) -> bool:
    return (
        isinstance(line.get("file"), str)
        and isinstance(line.get("id"), str | int | None)
        and any(isinstance(line.get(key), str) for key in ("text", "error"))
    )
