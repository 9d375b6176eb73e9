"""Replies on disk, one line each, so that an interrupted run continues where it stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.records import Line, Records, open_records

MARK = "smol-edge eval"
"""Tells a file of replies from any other; its value is the version of the format."""


@dataclass(frozen=True, slots=True)
class Results:
    """The replies of earlier runs, and a place for new ones."""

    replies: dict[str, str] = field(default_factory=dict)
    """Index of the question -> reply."""
    records: Records | None = None

    def add(self, item: Item, reply: str) -> None:
        """Keep a reply, if there is a file to keep it in. The score is for the reader: a continued run scores anew."""
        if self.records is None:
            return
        line = {"index": item.index, "kind": item.kind, "prompt": item.prompt, "reply": reply}
        self.records.add({**line, "answers": item.answers, "score": round(score(reply, item), 4)})


def header(
    model: str,
    engine: str,
    questions: str,
    metric: str,
    detail: Detail,
    max_tokens: int,
    prompts: str = "plain",
    data_set: str = "",
) -> Line:
    """What a file of replies begins with; model and questions are named by a hash of theirs.

    The data set is named if its name has a part in how it is asked.
    """
    worded = {} if prompts == "plain" else {"prompts": prompts}  # files of older versions are continued
    if data_set:
        worded["data_set"] = data_set
    return {
        MARK: 1,
        "model": model,
        "engine": engine,
        "questions": questions,
        "metric": metric,
        "detail": detail,
        "max_tokens": max_tokens,
        **worded,
    }


@contextmanager
def open_results(path: Path | None, begin: Line) -> Iterator[Results]:
    """Start a file of replies or continue one; without a path, nothing is written anywhere.

    Raises:
        RequestError: The file holds replies of another run, or something else.
    """
    if path is None:
        yield Results()
        return
    with open_records(path, begin, "--results", _is_reply) as records:
        yield Results({line["index"]: line["reply"] for line in records.lines}, records)


def _is_reply(line: Line) -> bool:
    return isinstance(line.get("index"), str) and isinstance(line.get("reply"), str)
