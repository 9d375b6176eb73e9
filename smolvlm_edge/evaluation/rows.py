"""The cells of a row as VLMEvalKit reads them."""

from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass
from json import loads
from string import ascii_uppercase

from smolvlm_edge.errors import RequestError

EMPTY = frozenset({"", "nan"})
MISSING = EMPTY.union(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|null".split("|")  # noqa: SIM905
)
"""Cells without a value: pandas, which reads such files for the kit, takes an option "None" for none."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file of questions."""

    name: str
    """What an error calls it."""
    cells: Mapping[str, str]

    def has(self, column: str) -> bool:
        """Whether a cell has a value."""
        return self.cells.get(column, "").strip() not in MISSING

    def get(self, column: str) -> str:
        """A cell, or nothing."""
        return self.cells[column] if self.has(column) else ""

    def options(self) -> dict[str, str]:
        """Letter -> text, of the columns A, B, C, ..."""
        return {letter: self.cells[letter] for letter in ascii_uppercase if self.has(letter)}

    def listed(self, column: str) -> dict[str, str]:
        """The same of a column that holds all options in a list."""
        return dict(zip(ascii_uppercase, as_list(self.get(column)), strict=False))

    def answer(self) -> str:
        """The right answer.

        Raises:
            RequestError: There is none.
        """
        answer = self.cells["answer"].strip()
        if answer.lower() in EMPTY:
            raise RequestError(
                f"{self.name} has no answer, so no reply can be scored: use a split whose answers are public"
            )
        return answer

    def answers(self) -> tuple[str, ...]:
        """All right answers.

        Raises:
            RequestError: There are none.
        """
        answers = as_list(self.answer())
        if not answers:
            raise RequestError(f"{self.name} has an empty list of answers")
        return answers

    def letter(self, options: Mapping[str, str], column: str = "answer") -> str:
        """The letter of the right option.

        Raises:
            RequestError: It is none of the letters.
        """
        letter = (self.answer() if column == "answer" else self.get(column)).strip().upper()
        if letter not in options:
            raise RequestError(
                f"{self.name}: the answer {letter!r} is not the letter of one of its {len(options)} options"
            )
        return letter

    def video(self) -> str:
        """The file of a video, in the folder of the file of questions: `video_path`, or `prefix`, `video`, `suffix`."""
        return self.get("video_path") or f"{self.get('prefix')}/{self.get('video')}{self.get('suffix')}".lstrip("/")

    def second(self, column: str) -> float | None:
        """A moment of a video.

        Raises:
            RequestError: It is no number.
        """
        try:
            return float(self.cells[column]) if self.has(column) else None
        except ValueError as error:
            raise RequestError(f"{self.name}: its {column}, {self.cells[column]!r}, is no number of seconds") from error


def as_list(cell: str) -> tuple[str, ...]:
    """The texts of a list in JSON or Python, or else the cell as it is."""
    for parse in (loads, literal_eval) if is_list(cell) else ():
        try:
            return tuple(map(str, parse(cell)))
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: a hostile depth of brackets
            continue
    return (cell,)


def is_list(cell: str) -> bool:
    """Whether a cell looks like a list."""
    return cell.startswith("[") and cell.endswith("]")
