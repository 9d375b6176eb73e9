"""Questions from a tab-separated file in the format of VLMEvalKit, however large its pictures make it.

A row has an index, an image (base64 of an image file, a list of several, or the index of an earlier row whose image
is meant), a question and an answer; a hint, options A, B, C, ... and a category are optional.
"""

import base64
import csv
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from smolvlm_edge.bundle import sha256
from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.evaluation.datasets import DATA_SETS, DataSet, Scored
from smolvlm_edge.evaluation.questions import Item, Metric, Questions, prompt
from smolvlm_edge.evaluation.rows import Row, as_list, is_list
from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.pictures.video import Video

logger = logging.getLogger(__name__)

REQUIRED = ("index", "image", "question", "answer")
KINDS = ("category", "l2-category", "split")
"""Columns that may name the kind of question; the first one that is filled in does."""
LONGEST_REFERENCE = 64
"""An image no longer than this is the index of another row: a rule of VLMEvalKit's `ImageBaseDataset`."""
LONGEST_FIELD = 2**31 - 1  # all that the csv module can count to on Windows
YES_NO = frozenset({"yes", "no"})


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
    """What the user asked for; None leaves it to the data set or to each row."""
    data_set: DataSet | None
    """What goes by the name of the file."""
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
        file = cls(path, metric, DATA_SETS.get(path.stem), all_yes_no=False, sources={}, count=0)
        indices: set[str] = set()
        sources: dict[str, str] = {}
        without_image, all_yes_no = 0, True
        for row in _rows(path):
            index, image = row.cells["index"], row.cells.get("image", "")
            if index in indices:
                raise RequestError(f"{row.name}: an earlier row has the same index; give every row its own")
            if file.shows_videos:
                _video(path, row)
            elif not row.has("image"):
                without_image += 1
                continue
            elif _is_reference(image):
                if image not in indices:
                    raise RequestError(
                        f"{row.name}: its image, {image!r}, is neither base64 nor the index of an earlier row"
                    )
                sources[index] = sources.get(image, image)
            else:
                _check_base64(row.name, image)  # now rather than after an hour of answers
            indices.add(index)
            answers = file._scored(row).answers
            all_yes_no = all_yes_no and YES_NO.issuperset(answer.lower() for answer in answers)
        if without_image:
            logger.warning("%d rows of %s have no image and are left out, as VLMEvalKit does", without_image, path.name)
        if not indices:
            raise RequestError(f"{path} holds no question with an image: is it the right file?")
        return replace(file, all_yes_no=all_yes_no, sources=sources, count=len(indices))

    @property
    def shows_videos(self) -> bool:
        """Whether the rows name files of videos."""
        return self.data_set is not None and self.data_set.shows_videos

    def items(self, detail: Detail = "high") -> Iterator[Item]:
        """All questions in the order of the file; of the images, only those stay that other rows refer to."""
        wanted, kept = set(self.sources.values()), dict[str, str]()
        for row in _rows(self.path):
            if self.shows_videos:
                yield self._item(row, partial(_video, self.path, row), detail)
                continue
            index, image = row.cells["index"], row.cells["image"]
            if index in wanted:
                kept[index] = image
            if row.has("image"):
                yield self._item(row, partial(_pictures, kept.get(self.sources.get(index, ""), image)), detail)

    def _item(self, row: Row, images: Callable[[], Sequence[Source]], detail: Detail) -> Item:
        scored = self._scored(row)
        columns = (self.data_set.kind, *KINDS) if self.data_set else KINDS
        return Item(
            index=row.cells["index"],
            name=row.name,
            kind=next((" ".join(row.cells[column].split()) for column in columns if row.has(column)), scored.rule),
            images=images,
            prompt=self._prompt(row),
            answers=scored.answers,
            metric=scored.rule,
            detail=detail,
            options=scored.options,
        )

    def _prompt(self, row: Row) -> str:
        if self.data_set:
            return self.data_set.asked(row)
        return prompt(self._metric(row), row.cells["question"], row.get("hint"), row.options())

    def _scored(self, row: Row) -> Scored:
        if self.data_set and not self.metric:
            return self.data_set.scored(row)
        metric, options = self._metric(row), row.options()
        if metric == "choice":
            return Scored(metric, (row.letter(options),), options)
        answers = row.answers()
        if metric == "yes/no" and not YES_NO.issuperset(answer.lower() for answer in answers):
            raise RequestError(
                f"{row.name}: the answer {row.cells['answer']!r} is neither yes nor no; choose another --metric"
            )
        return Scored(metric, answers, options)

    def _metric(self, row: Row) -> Metric:
        return self.metric or ("choice" if row.options() else "yes/no" if self.all_yes_no else "exact")


def _rows(path: Path) -> Iterator[Row]:
    """Every row, under the name that an error calls it."""
    if not os.path.isfile(path):
        raise RequestError(f"{path} is no file: name a tab-separated file of questions, or none for drawn scenes")
    csv.field_size_limit(LONGEST_FIELD)  # a picture is a field; the limit holds for the whole process
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        try:
            required = _required(path.stem)
            missing = [column for column in required if column not in (reader.fieldnames or ())]
            if missing:
                of_that_name = f" of {path.stem}" if path.stem in DATA_SETS else ""
                raise RequestError(
                    f"{path} lacks the column {', '.join(missing)}: a file of questions{of_that_name} begins with a "
                    f"line of tab-separated column names, {', '.join(required)} among them"
                )
            for number, row in enumerate(reader, 1):
                name = f"{path.name}, row {number}"
                if None in row or None in row.values():
                    raise RequestError(f"{name} has more or fewer columns than the first line: the file is damaged")
                yield Row(f"{name} (index {row['index']})", row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is no tab-separated UTF-8 text ({error}): fetch or save it again") from error


def _required(name: str) -> list[str]:
    data_set = DATA_SETS.get(name)
    if data_set is None:
        return list(REQUIRED)
    shown = ["video" if data_set.shows_videos and column == "image" else column for column in REQUIRED]
    return [*shown, *data_set.columns]


def _is_reference(image: str) -> bool:
    return len(image) <= LONGEST_REFERENCE and not is_list(image)


def _video(path: Path, row: Row) -> list[Source]:
    file = path.parent / row.video()
    if not file.exists():
        raise ImageError(f"{row.name}: there is no video {file}")
    return [Video(file, start=row.second("start"), end=row.second("end"))]


def _pictures(image: str) -> list[Source]:
    return [base64.b64decode("".join(each.split()), validate=True) for each in as_list(image)]


def _check_base64(name: str, image: str) -> None:
    try:
        _pictures(image)
    except ValueError as error:
        raise ImageError(
            f"{name}: its image is no base64 ({error}): fetch the file again or take the row out"
        ) from error
