"""Pictures in a WebDataset shard: a tar in which `key.jpg`, `key.json` and so on, one after another, are a sample."""

import re
import tarfile
import zlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smolvlm_edge.captions.places import PictureOf, Place
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.pictures.sources import MAX_FILE_BYTES

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
"""A key, which ends at the first dot of the name, and an ending: as the library webdataset splits them."""


class Shard:
    """The samples of a tar that have a picture."""

    def __init__(self, path: Path, name: str, column: str | None, endings: Container[str]) -> None:
        """Read the names, and no picture.

        Args:
            path: The tar, which may be compressed.
            name: What it is called in places.
            column: The ending of the members that are the pictures; by default the first of a sample in `endings`.
            endings: Of pictures, in small letters, with the dot.

        Raises:
            ImageError: It is damaged, or no tar.
            RequestError: A key comes twice, or no sample has such a member.
        """
        self._path, self._name = path, name
        self._endings: dict[str, str] = {}
        last, seen = "", set[str]()
        for key, ending, _, _ in _members(path):
            if key != last and key in seen:
                raise RequestError(f"{path} has the key {key} in two places: a sample's files stand together")
            last = key
            seen.add(key)
            is_picture = f".{ending.lower()}" in endings if column is None else ending == column
            if is_picture:
                self._endings.setdefault(key, ending)
        if seen and not self._endings and column is not None:
            raise RequestError(f"{path} has no member that ends with .{column}: say another --column")
        self.places: Sequence[Place] = [Place(name, key) for key in self._endings]

    def read(self, wanted: Container[Place]) -> Iterator[tuple[Place, PictureOf]]:
        """See `Source.read`."""
        before = None
        for key, ending, member, tar in _members(self._path):
            place = Place(self._name, key)
            if self._endings.get(key) == ending and place in wanted and place != before:
                before = place  # a member may be there twice
                yield place, _content(tar, member, MAX_FILE_BYTES + 1)  # one more is told to be too long

    def members(self) -> Iterator[tuple[Place, str, bytes]]:
        """All files of the samples with pictures, each with its ending."""
        for key, ending, member, tar in _members(self._path):
            if key in self._endings:
                yield Place(self._name, key), ending, _content(tar, member)

    def shown(self, place: Place) -> str:
        """See `Source.shown`."""
        return f"{self._path}, {place.id}"


def _members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """The files of a tar one after another, never going back, which in a compressed one would begin anew."""
    with _opened(path) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined] # it keeps them all, and a shard may have a million
            found = MEMBER.fullmatch(member.name)
            if found and member.isfile() and not member.name.startswith("__"):
                yield found[1], found[2], member, tar
        # tarfile takes a header that is none for the end
        stream = tar.fileobj
        assert stream is not None, "it is open"
        stream.seek(tar.offset)
        if any(stream.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("it goes on with something else")


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as tar:
            yield tar
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError.of_file(path, error) from error
        raise ImageError(f"{path} is no tar file, or a damaged one: {error}") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int = -1) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "regular files have content"
    return file.read(most)
