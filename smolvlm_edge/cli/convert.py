"""`smol-edge convert`."""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from smolvlm_edge.bundle import MANIFEST, sha256
from smolvlm_edge.cli.groups import ModelOptions, grouped
from smolvlm_edge.cli.options import counting_bar
from smolvlm_edge.conversation.request import Request
from smolvlm_edge.documents import SUFFIXES, Format, assemble, draw_pages, page_count, read_numbers
from smolvlm_edge.errors import PartialError, RequestError
from smolvlm_edge.generation.answer import Answer
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.records import Line, Records, check_place, open_records

MARK = "smol-edge convert"
PROMPT = "Convert this page to docling."
DEFAULT_MODEL = "granite-docling"


@grouped
def convert(
    document: Annotated[Path, typer.Argument(show_default=False, help="A PDF.")],
    to: Annotated[Format, typer.Option("--to", help="What to write.")] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="Where to write it.", show_default="beside the PDF, with another ending")
    ] = None,
    pages: Annotated[str, typer.Option(help="Which pages, as in 3-7 or 1,4-6.", show_default="all")] = "1-",
    *,
    named: ModelOptions,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest page.")] = 8192,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
) -> None:
    """Read a document with a Docling model. Stopped, the same command goes on where it was.

    Pages that are read stand in a hidden file beside the output until all of them are. A page that says the same over
    and over is ended, and said.

    Example: smol-edge convert paper.pdf --model granite-docling --to markdown
    Example: smol-edge convert book.pdf --pages 3-7 --to html --out chapter.html
    """
    out = out or document.with_suffix(SUFFIXES[to])
    if out.exists() and not force:
        raise RequestError(f"{out} exists: choose another --out, or replace it with --force")
    check_place(out, "--out")
    numbers = read_numbers(pages, page_count(document))
    named = replace(named, model=named.model or DEFAULT_MODEL)
    folder = named.find()
    begin = {
        MARK: 1,
        "document": sha256(document),
        "bundle": sha256(folder / MANIFEST),
        "prompt": PROMPT,
        "max_tokens": max_tokens,
    }
    progress = out.with_name(f".{out.name}.pages.jsonl")
    with open_records(progress, begin, "--out", _is_page, lambda line: "doctags" in line) as records:
        known = {line["page"]: line for line in records.lines}
        missing = [number for number in numbers if number not in known]
        if missing:
            with named.load(folder) as vlm, counting_bar("page") as bar:
                bar.add_task("", total=len(numbers), completed=len(numbers) - len(missing))
                known |= _read_pages(vlm, document, missing, max_tokens, records, bar)
    failed = [number for number in numbers if "doctags" not in known[number]]
    read = [number for number in numbers if number not in failed]
    tags = [known[number]["doctags"] for number in read]
    text = assemble(document.stem, list(zip(tags, draw_pages(document, read), strict=True)), to)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)
    if cut := [number for number in read if known[number]["finish_reason"] == "length"]:
        print(f"note: cut off: page {', '.join(map(str, cut))}", file=sys.stderr)
    print(out)
    if failed:
        raise PartialError(
            f"{len(failed)} of {len(numbers)} pages failed (page {', '.join(map(str, failed))}): the others are in "
            f"{out}; the same command with --force tries them again"
        )
    progress.unlink()


def _read_pages(
    vlm: SmolVLM, document: Path, numbers: list[int], max_tokens: int, records: Records, bar: Progress
) -> dict[int, Line]:
    """What the model says of pages, each written as soon as it is read."""
    lines: dict[int, Line] = {}
    requests = (Request(images=page, prompt=PROMPT) for page in draw_pages(document, numbers))
    with closing(vlm.generate_many(requests, max_tokens=max_tokens, stop_loops=True)) as answers:
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, Answer):
                lines[number] = {"page": number, "doctags": answer.text, "finish_reason": answer.finish_reason}
            else:
                lines[number] = {"page": number, "error": str(answer) or type(answer).__name__}
                bar.console.print(f"failed: page {number}: {answer}", markup=False, highlight=False, soft_wrap=True)
            records.add(lines[number])
            bar.advance(bar.task_ids[0])
    return lines


def _is_page(line: Line) -> bool:
    return isinstance(line.get("page"), int) and any(isinstance(line.get(key), str) for key in ("doctags", "error"))
