"""What a picture is called in a file of captions."""

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

PictureOf = bytes | Path
"""The bytes of a picture's file, or where that is."""


class Place(NamedTuple):
    """A file as seen from the output's folder, and for a data set which of its pictures."""

    file: str
    id: int | str | None = None
    """A row's number or id, or a sample's key; None for a picture that is a file of its own."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Place":
        """The place that a line of JSON is about."""
        return cls(line["file"], line.get("id"))

    def to_line(self) -> dict[str, Any]:
        """As a line of JSON begins."""
        return {"file": self.file} if self.id is None else {"file": self.file, "id": self.id}


class Source(Protocol):
    """Pictures that are listed at once and read one at a time."""

    @property
    def places(self) -> Sequence[Place]:
        """All of them, in order."""

    def read(self, wanted: Container[Place]) -> Iterator[tuple[Place, PictureOf]]:
        """Those that are wanted, in the same order.

        Raises:
            ImageError: The data set can no longer be read.
        """

    def shown(self, place: Place) -> str:
        """A picture's name for a message, as the user would write it."""
