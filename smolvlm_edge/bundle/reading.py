"""JSON files of checkpoints and bundles, which may be a stranger's: bounded in size, every value typed and in range."""

import json
import os
import reprlib
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from smolvlm_edge.errors import IntegrityError, UnsupportedModelError
from smolvlm_edge.values import MOST

LARGEST_FILE = 64 << 20
"""Bytes; a tokenizer.json of 250,000 tokens has 35 million."""

T = TypeVar("T")


def read_bytes(path: Path, limit: int = LARGEST_FILE) -> bytes:
    """The bytes of a regular file: what never ends, or waits for a writer, is refused.

    Raises:
        IntegrityError: The file is missing, unreadable, no regular file or larger than `limit`.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - Path's looks at the working folder for ""
            raise IntegrityError(f"{path} is no regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise IntegrityError(f"{path.name} is missing from {path.parent}") from None
    except (OSError, ValueError) as error:
        raise IntegrityError.of_file(path, error) from error
    if len(data) > limit:
        raise IntegrityError(f"{path} has more than {limit:,} bytes")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        IntegrityError: The file is missing, unreadable, too large, or no JSON object.
    """
    data = read_bytes(path)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise IntegrityError(f"{path} holds no JSON object")
    return values


@dataclass(frozen=True, slots=True)
class Section:
    """One JSON object with typed access and errors that name the place.

    A number that is null counts as missing. Every method but `refuse` raises IntegrityError for a value that is missing
    and has no default, of another type or out of range.
    """

    values: Mapping[str, Any]
    place: str

    @classmethod
    def of_file(cls, path: Path) -> "Section":
        """What a file holds."""
        return cls(read_json(path), path.name)

    @classmethod
    def of_file_if_there(cls, path: Path) -> "Section":
        """What a file holds; nothing if there is no such file."""
        return cls.of_file(path) if os.path.lexists(path) else cls({}, path.name)

    def section(self, key: str) -> "Section":
        """The object inside of that name."""
        value = self.values.get(key)
        if value is None:
            raise IntegrityError(f"{self.place}: {key} is missing")
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Section(value, f"{self.place}: {key}")

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = MOST) -> int:
        """A whole number."""
        value = self._given(key, default)
        if type(value) is not int or not least <= value <= most:  # not isinstance: true is no number
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._given(key, default)
        if not _is_number(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; null is false, as in transformers."""
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return bool(value)

    def text(self, key: str) -> str:
        """A text."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """One whole number or a list of them, such as token ids; none if it is missing or null."""
        value = self.values.get(key)
        numbers = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(type(number) is int and 0 <= number <= MOST for number in numbers):
            raise self._wrong(key, f"whole numbers from 0 to {MOST}")
        return tuple(numbers)

    def runs(self, key: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of whole numbers; none if it is missing or null."""
        value = self._given(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(run, list | tuple) and run for run in value):
            raise self._wrong(key, "lists of whole numbers")
        return tuple(Section({key: run}, self.place).integers(key) for run in value)

    def biases(self, key: str) -> tuple[tuple[tuple[int, ...], float], ...]:
        """A list of pairs, each of a list of whole numbers and a number; none if it is missing or null."""
        value = self._given(key, [])
        if not isinstance(value, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
        ):
            raise self._wrong(key, "pairs of whole numbers and a number")
        runs = Section({key: [run for run, _ in value]}, self.place).runs(key)
        numbers = (Section({key: number}, self.place).number(key) for _, number in value)
        return tuple(zip(runs, numbers, strict=True))

    def decay(self, key: str) -> tuple[int, float]:
        """A whole number and a number."""
        value = self._given(key, [])
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self._wrong(key, "a whole number and a number")
        start, factor = (Section({key: part}, self.place) for part in value)
        return start.integer(key), factor.number(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; none if it is missing or null."""
        value = self._given(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def text_or_texts(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts; none if it is missing or null."""
        value = self.values.get(key)
        return (value,) if isinstance(value, str) else self.texts(key)

    def optional(self, read: Callable[[str], T], key: str) -> T | None:
        """What one of the methods above reads; None if it is missing or null."""
        return None if self.values.get(key) is None else read(key)

    def triple(self, key: str) -> tuple[float, float, float]:
        """Three finite numbers, as for red, green and blue."""
        match self.values.get(key):
            case [r, g, b] if all(map(_is_number, (r, g, b))):
                return float(r), float(g), float(b)
            case _:
                raise self._wrong(key, "three finite numbers")

    def fill(self, cls: type[T], *, most: int = MOST) -> T:
        """The dataclass with these values; what has a default may be missing, and nothing may be unknown.

        Args:
            cls: Its fields are int, float, bool, str, tuples as the methods above give them, another such
            dataclass, or one of these or None.
            most: The largest whole number.
        """
        types = get_type_hints(cls)
        if unknown := self.values.keys() - types.keys():
            raise IntegrityError(f"{self.place}: {_shown(min(unknown))} is unknown")
        has_default = {
            field.name: field.default is not MISSING or field.default_factory is not MISSING
            for field in fields(cls)  # type: ignore[arg-type]
        }
        names = (name for name in types if name in self.values or not has_default[name])
        return cls(**{name: self._of_type(name, types[name], most) for name in names})

    def _of_type(self, key: str, type_: Any, most: int) -> Any:
        if type(None) in get_args(type_):
            if self.values.get(key) is None:
                return None
            (type_,) = (each for each in get_args(type_) if each is not type(None))
        if isinstance(type_, type) and is_dataclass(type_):
            return self.section(key).fill(type_, most=most)
        if type_ is int:
            return self.integer(key, least=-most, most=most)
        readers: dict[Any, Callable[[str], Any]] = {
            float: self.number,
            bool: self.flag,
            str: self.text,
            tuple[int, ...]: self.integers,
            tuple[tuple[int, ...], ...]: self.runs,
            tuple[str, ...]: self.texts,
            tuple[tuple[tuple[int, ...], float], ...]: self.biases,
            tuple[int, float]: self.decay,
        }
        return readers[type_](key)

    def shown(self, key: str) -> str:
        """A value for a message, which has to fit a terminal."""
        return _shown(self.values.get(key))

    def refuse(self, key: str, *allowed: object) -> None:
        """Raise unless the value is absent, null, false or one of those allowed.

        Raises:
            UnsupportedModelError: It is something else.
        """
        value = self.values.get(key)
        if value and value not in allowed:
            raise UnsupportedModelError(f"{self.place}: {key}={self.shown(key)} is not supported")

    def _given(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def _wrong(self, key: str, wanted: str) -> IntegrityError:
        return IntegrityError(f"{self.place}: {key} must be {wanted}, not {self.shown(key)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shown(value: object) -> str:
    """A value in a message, which has to fit a terminal."""
    return reprlib.repr(value)[:60]
