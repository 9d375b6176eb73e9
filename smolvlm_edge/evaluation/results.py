"""Replies on disk, one line each, so that an interrupted run continues where it stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from smolvlm_edge.errors import RequestError
from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.images import Detail

Header = dict[str, Any]
"""What the replies depend on; its first key is MARK."""
MARK = "smol-edge eval"
"""Tells a file of replies from any other; its value is the version of the format."""


@dataclass(slots=True)
class Results:
    """The replies of earlier runs, and a place for new ones."""

    replies: dict[str, str] = field(default_factory=dict)
    """Index of the question -> reply."""
    file: BinaryIO | None = None

    def add(self, item: Item, reply: str) -> None:
        """Keep a reply, if there is a file to keep it in. The score is for the reader: a continued run scores anew."""
        if self.file is None:
            return
        line = {"index": item.index, "kind": item.kind, "prompt": item.prompt, "reply": reply}
        self.file.write(_line({**line, "answers": item.answers, "score": round(score(reply, item), 4)}))
        self.file.flush()


def header(model: str, engine: str, questions: str, metric: str, detail: Detail, max_tokens: int) -> Header:
    """What a file of replies begins with; model and questions are named by a hash of theirs."""
    return {
        MARK: 1,
        "model": model,
        "engine": engine,
        "questions": questions,
        "metric": metric,
        "detail": detail,
        "max_tokens": max_tokens,
    }


@contextmanager
def open_results(path: Path | None, begin: Header) -> Iterator[Results]:
    """Start a file of replies or continue one; without a path, nothing is written anywhere.

    Raises:
        RequestError: The file holds replies of another run, or something else.
    """
    if path is None:
        yield Results()
        return
    with path.open("a+b") as file:
        yield Results(_replies(file, path, begin), file)


def _replies(file: BinaryIO, path: Path, begin: Header) -> dict[str, str]:
    """What the file holds so far; the end of it that an interrupt cut off is removed."""
    file.seek(0)
    first, expected = file.readline(), _line(begin)
    if first != expected and expected.startswith(first):  # empty, or interrupted at once
        file.truncate(0)
        file.write(expected)
        file.flush()
        return {}
    _check_header(path, first, begin)
    replies: dict[str, str] = {}
    end = len(first)
    for number, line in enumerate(file, 2):
        if not line.endswith(b"\n"):
            break
        found = _parsed(line)
        if not isinstance(found.get("index"), str) or not isinstance(found.get("reply"), str):
            raise RequestError(f"{path}, line {number} is damaged: remove that line to have its question asked again")
        replies[found["index"]] = found["reply"]
        end += len(line)
    file.truncate(end)
    return replies


def _check_header(path: Path, first: bytes, begin: Header) -> None:
    found = _parsed(first)
    if MARK not in found:
        raise RequestError(f"{path} holds something other than results: name another file with --results")
    differing = [key for key in begin if found.get(key) != begin[key]]
    if differing:
        raise RequestError(
            f"{path} holds replies of another run, which differs in {', '.join(differing)}: "
            "repeat that run, or name another file with --results"
        )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"
