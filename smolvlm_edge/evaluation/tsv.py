"""Questions from a tab-separated file in the format of VLMEvalKit, however large its pictures make it.

A row has an index, an image (base64 of an image file, a list of several, or the index of an earlier row whose image
is meant), a question and an answer; a hint, options A, B, C, ... and a category are optional.
"""

import base64
import csv
import logging
import os
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from json import loads
from pathlib import Path
from string import ascii_uppercase
from typing import Self

from smolvlm_edge.bundle import sha256
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.evaluation.questions import Item, Metric, Questions, prompt
from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.pictures.sources import ImageSource

logger = logging.getLogger(__name__)

REQUIRED = ("index", "image", "question", "answer")
KINDS = ("category", "l2-category", "split")
"""Columns that may name the kind of question; the first one that is filled in does."""
LONGEST_REFERENCE = 64
"""An image no longer than this is the index of another row: a rule of VLMEvalKit's `ImageBaseDataset`."""
LONGEST_FIELD = 2**31 - 1  # all that the csv module can count to on Windows
YES_NO = frozenset({"yes", "no"})

Row = dict[str, str]


def file_questions(
    path: Path, metric: Metric | None = None, limit: int | None = None, detail: Detail = "high"
) -> Questions:
    """The questions of a file, all of it checked.

    Raises:
        RequestError: The file is missing, damaged or empty, or a row cannot be asked or scored.
    """
    file = QuestionFile.open(path, metric)
    return Questions(file.items(detail), min(limit or file.count, file.count), sha256(path))


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """A file whose every row has been looked at; what the base64 holds shows when it is the picture's turn."""

    path: Path
    metric: Metric | None
    """What the user asked for; None leaves it to each row."""
    all_yes_no: bool
    """Whether every answer is yes or no."""
    sources: dict[str, str]
    """Index of a row without an image of its own -> index of the row that holds it."""
    count: int
    """Questions."""

    @classmethod
    def open(cls, path: Path, metric: Metric | None = None) -> Self:
        """Check the whole file, row by row.

        Raises:
            RequestError: The file is missing, damaged or empty, or a row cannot be asked or scored.
            ImageError: An image is no base64.
        """
        file = cls(path, metric, all_yes_no=False, sources={}, count=0)
        indices: set[str] = set()
        sources: dict[str, str] = {}
        without_image, all_yes_no = 0, True
        for name, row in _rows(path):
            index, image = row["index"], row["image"]
            if index in indices:
                raise RequestError(f"{name}: an earlier row has the same index; give every row its own")
            if not _is_there(row, "image"):
                without_image += 1
                continue
            if _is_reference(image):
                if image not in indices:
                    raise RequestError(
                        f"{name}: its image, {image!r}, is neither base64 nor the index of an earlier row"
                    )
                sources[index] = sources.get(image, image)
            else:
                _check_base64(name, image)  # now rather than after an hour of answers
            indices.add(index)
            answers = file._item(name, row, image, "high").answers
            all_yes_no = all_yes_no and YES_NO.issuperset(answer.lower() for answer in answers)
        if without_image:
            logger.warning("%d rows of %s have no image and are left out, as VLMEvalKit does", without_image, path.name)
        if not indices:
            raise RequestError(f"{path} holds no question with an image: is it the right file?")
        return replace(file, all_yes_no=all_yes_no, sources=sources, count=len(indices))

    def items(self, detail: Detail = "high") -> Iterator[Item]:
        """All questions in the order of the file; of the images, only those stay that other rows refer to."""
        wanted, kept = set(self.sources.values()), dict[str, str]()
        for name, row in _rows(self.path):
            index, image = row["index"], row["image"]
            if index in wanted:
                kept[index] = image
            if _is_there(row, "image"):
                yield self._item(name, row, kept[self.sources[index]] if index in self.sources else image, detail)

    def _item(self, name: str, row: Row, image: str, detail: Detail) -> Item:
        options = {letter: row[letter] for letter in ascii_uppercase if _is_there(row, letter)}
        metric = self.metric or ("choice" if options else "yes/no" if self.all_yes_no else "exact")
        return Item(
            index=row["index"],
            name=name,
            kind=next((" ".join(row[column].split()) for column in KINDS if _is_there(row, column)), metric),
            images=partial(_pictures, image),
            prompt=prompt(metric, row["question"], row["hint"] if _is_there(row, "hint") else "", options),
            answers=_answers(name, row, metric, options),
            metric=metric,
            detail=detail,
            options=options,
        )


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Every row, under the name that an error calls it."""
    if not os.path.isfile(path):
        raise RequestError(f"{path} is no file: name a tab-separated file of questions, or none for drawn scenes")
    csv.field_size_limit(LONGEST_FIELD)  # a picture is a field; the limit holds for the whole process
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        try:
            missing = [column for column in REQUIRED if column not in (reader.fieldnames or ())]
            if missing:
                raise RequestError(
                    f"{path} lacks the column {', '.join(missing)}: a file of questions begins with a line of "
                    f"tab-separated column names, {', '.join(REQUIRED)} among them"
                )
            for number, row in enumerate(reader, 1):
                name = f"{path.name}, row {number}"
                if None in row or None in row.values():
                    raise RequestError(f"{name} has more or fewer columns than the first line: the file is damaged")
                yield f"{name} (index {row['index']})", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is no tab-separated UTF-8 text ({error}): fetch or save it again") from error


def _is_there(row: Row, column: str) -> bool:
    """Whether a cell is filled in; pandas, which writes such files, may leave a nan."""
    return row.get(column, "").strip().lower() not in ("", "nan")


def _is_reference(image: str) -> bool:
    return len(image) <= LONGEST_REFERENCE and not _is_list(image)


def _is_list(cell: str) -> bool:
    return cell.startswith("[") and cell.endswith("]")


def _list(cell: str) -> tuple[str, ...]:
    """The texts of a list in JSON or Python, or else the cell as it is."""
    for parse in (loads, literal_eval) if _is_list(cell) else ():
        try:
            return tuple(map(str, parse(cell)))
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: a hostile depth of brackets
            continue
    return (cell,)


def _answers(name: str, row: Row, metric: Metric, options: dict[str, str]) -> tuple[str, ...]:
    if not _is_there(row, "answer"):
        raise RequestError(f"{name} has no answer, so no reply can be scored: use a split whose answers are public")
    if metric == "choice":
        letter = row["answer"].strip().upper()
        if letter not in options:
            raise RequestError(f"{name}: the answer {letter!r} is not the letter of one of its {len(options)} options")
        return (letter,)
    answers = _list(row["answer"].strip())
    if not answers:
        raise RequestError(f"{name} has an empty list of answers")
    if metric == "yes/no" and not YES_NO.issuperset(answer.lower() for answer in answers):
        raise RequestError(f"{name}: the answer {row['answer']!r} is neither yes nor no; choose another --metric")
    return answers


def _pictures(image: str) -> list[ImageSource]:
    return [base64.b64decode("".join(each.split()), validate=True) for each in _list(image)]


def _check_base64(name: str, image: str) -> None:
    try:
        _pictures(image)
    except ValueError as error:
        raise ImageError(
            f"{name}: its image is no base64 ({error}): fetch the file again or take the row out"
        ) from error
