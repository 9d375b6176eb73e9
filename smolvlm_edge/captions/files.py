"""Files, folders and patterns on the command line -> the pictures and data sets that they mean, in order."""

import logging
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from itertools import takewhile
from pathlib import Path

from PIL import Image

from smolvlm_edge.captions import parquet, webdataset
from smolvlm_edge.errors import ImageError
from smolvlm_edge.pictures.images import check_image
from smolvlm_edge.pictures.sources import HEIC_HINT, HEIC_SUFFIXES, known_formats, reads_heic, shown

logger = logging.getLogger(__name__)

WILD = re.compile(r"[*?[]")


def find_pictures(arguments: Sequence[str]) -> list[Path]:
    """The pictures that the arguments mean, each once: argument by argument, `2.png` before `10.png`.

    A folder means the pictures in it and in the folders in it, by their names. Hidden files are left out, and a link to
    a folder that was seen already is not followed. A pattern that the shell left alone (`photos/**/*.jpg`) means what
    it matches. A data set (.parquet, .tar) stands for the pictures in it; in a folder it counts where there is no
    picture. What is no picture is left out, and a note says how much that is, and how much of it is in HEIC, which
    needs an extra.

    Raises:
        ImageError: An argument means nothing at all, or all of them together no picture.
    """
    pictures: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for argument in arguments:
        found, left_out = _sort_out(_named(argument))
        if not found:
            found = [path for path in left_out if is_data_set(path)]
            left_out = [path for path in left_out if not is_data_set(path)]
        pictures |= {os.path.abspath(path): path for path in sorted(found, key=_order)}  # noqa: PTH100 - not resolved
        others |= {os.path.abspath(path): path for path in left_out}  # noqa: PTH100
    heic = sum(path.suffix.lower() in HEIC_SUFFIXES for path in others.values())
    if len(others) > heic:
        logger.warning("files that are no pictures, and left out: %d", len(others) - heic)
    if heic:
        logger.warning("pictures in HEIC, and left out: %d; to read them, %s", heic, HEIC_HINT)
    if not pictures:
        raise ImageError(f"{', '.join(map(shown, arguments))}: no picture there")
    return list(pictures.values())


def _named(argument: str) -> list[Path]:
    path = Path(argument)
    if os.path.lexists(path):
        return [path]
    plain = list(takewhile(lambda part: not WILD.search(part), path.parts))
    if len(plain) == len(path.parts):
        raise ImageError(f"{shown(argument)} does not exist")
    try:
        found = _matches(Path(*plain), path.parts[len(plain) :])
    except (ValueError, OSError) as error:
        raise ImageError(f"{shown(argument)} is no pattern that can be read: {error}") from error
    if not found:
        raise ImageError(f"{shown(argument)} matches no file")
    return found


def _matches(folder: Path, pattern: Sequence[str]) -> list[Path]:
    """What a pattern matches below a folder, hidden files left out; each folder is looked at once for each part.

    `Path.glob` looks into a folder as often as there are ways for `**/**/**` to lead there.
    """
    found = {folder: None}
    for part in pattern:
        if part == "**":
            found = {inner: None for each in found for inner in _folders(each, found)}
        elif "**" in part:
            raise ValueError("** must stand alone between two slashes")
        elif WILD.search(part):
            found = {path: None for each in found for path in _visible(each) if fnmatch(path.name, part)}
        else:
            found = {each / part: None for each in found if os.path.lexists(each / part)}
    return list(found)


def _folders(top: Path, others: Container[Path]) -> Iterator[Path]:
    """A folder and those within it, links not followed; what begins at another of them is left to that one."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        inner = (each for each in _visible(folder) if os.path.isdir(each) and not each.is_symlink())  # noqa: PTH112
        waiting += [each for each in inner if each not in others]


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except NotADirectoryError:
        return []
    except OSError as error:
        logger.warning("%s cannot be read (%s): what is in it is left out", shown(folder), error.strerror)
        return []


def _sort_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The pictures among files and in folders, and the other files."""
    pictures, others = list[Path](), list[Path]()
    seen: set[tuple[int, int]] = set()
    for path in paths:
        in_folder = os.path.isdir(path)  # noqa: PTH112 - as PTH113, see pyproject.toml
        for file in _walk(path, seen) if in_folder else [path]:
            if _has_picture_name(file) or (not in_folder and (is_data_set(file) or _holds_picture(file))):
                pictures.append(file)
            else:
                others.append(file)
    return pictures, others


def _walk(top: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The files in a folder and in those within it, but for folders seen before.

    Links come last, so that what they lead to keeps its own name.
    """
    folders, links = [top], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            entries = [] if identity in seen else sorted(folder.iterdir())
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            inner = {entry for entry in visible if entry.is_dir()}
            files = [entry for entry in visible if entry not in inner and (entry.is_file() or not entry.exists())]
        except OSError as error:
            logger.warning("%s cannot be read (%s): what is in it is left out", shown(folder), error.strerror)
            continue
        seen.add(identity)
        yield from files  # dead links too, which fail later by their names, but no pipes
        folders += sorted(entry for entry in inner if not entry.is_symlink())
        links += sorted(entry for entry in inner if entry.is_symlink())


def is_data_set(file: Path) -> bool:
    """Whether it holds many pictures, by its name."""
    return file.name.lower().endswith((parquet.SUFFIX, *webdataset.SUFFIXES))


def _holds_picture(file: Path) -> bool:
    try:
        check_image(file)
    except ImageError:
        return False
    return True


def _has_picture_name(file: Path) -> bool:
    return file.suffix.lower() in picture_suffixes()


@cache
def picture_suffixes() -> frozenset[str]:
    """Endings of what can be read here, in small letters, with the dot."""
    known = {*known_formats(), *(["HEIF"] if reads_heic() else [])}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def _order(path: Path) -> tuple[list[list[str | int]], Path]:
    """Folder by folder, and names as people sort them, numbers by their value."""
    parts = [re.split("([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(part)] for part in parts], path
