"""Files, folders and patterns on the command line -> the pictures that they mean, in order."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

from PIL import Image

from smolvlm_edge.errors import ImageError
from smolvlm_edge.pictures.images import check_image, known_formats

logger = logging.getLogger(__name__)

WILD = re.compile(r"[*?[]")


def find_pictures(arguments: Sequence[str]) -> list[Path]:
    """The pictures that the arguments mean, each once: argument by argument, `2.png` before `10.png`.

    A folder means the pictures in it and in the folders in it, by their names. Hidden files are left out, and a link to
    a folder that was seen already is not followed. A pattern that the shell left alone (`photos/**/*.jpg`) means what
    it matches. What is no picture is left out, and a note says how much that is.

    Raises:
        ImageError: An argument means nothing at all, or all of them together no picture.
    """
    pictures: dict[str, Path] = {}
    others = 0
    for argument in arguments:
        found, left_out = _sort_out(_named(argument))
        pictures |= {os.path.abspath(path): path for path in sorted(found, key=_order)}  # noqa: PTH100 - not resolved
        others += left_out
    if others:
        logger.warning("files that are no pictures, and left out: %d", others)
    if not pictures:
        raise ImageError(f"{', '.join(arguments)}: no picture there")
    return list(pictures.values())


def _named(argument: str) -> list[Path]:
    path = Path(argument)
    if os.path.lexists(path):
        return [path]
    plain = list(takewhile(lambda part: not WILD.search(part), path.parts))
    if len(plain) == len(path.parts):
        raise ImageError(f"{argument} does not exist")
    folder = Path(*plain)
    try:
        found = [match for match in folder.glob(str(Path(*path.parts[len(plain) :]))) if not _is_hidden(match, folder)]
    except (ValueError, OSError) as error:
        raise ImageError(f"{argument} is no pattern that can be read: {error}") from error
    if not found:
        raise ImageError(f"{argument} matches no file")
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _sort_out(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """The pictures among files and in folders, and how many other files there are."""
    pictures, others = list[Path](), 0
    for path in paths:
        in_folder = os.path.isdir(path)  # noqa: PTH112 - as PTH113, see pyproject.toml
        for file in _walk(path) if in_folder else [path]:
            if _has_picture_name(file) or (not in_folder and _holds_picture(file)):
                pictures.append(file)
            else:
                others += 1
    return pictures, others


def _walk(top: Path) -> Iterator[Path]:
    """The files in a folder and in those within it; links come last, so that what they lead to keeps its own name."""
    seen: set[tuple[int, int]] = set()
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
            logger.warning("%s cannot be read (%s): what is in it is left out", folder, error.strerror)
            continue
        seen.add(identity)
        yield from files  # dead links too, which fail later by their names, but no pipes
        folders += sorted(entry for entry in inner if not entry.is_symlink())
        links += sorted(entry for entry in inner if entry.is_symlink())


def _holds_picture(file: Path) -> bool:
    try:
        check_image(file)
    except ImageError:
        return False
    return True


def _has_picture_name(file: Path) -> bool:
    return file.suffix.lower() in _suffixes()


@cache
def _suffixes() -> frozenset[str]:
    known = known_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


def _order(path: Path) -> tuple[list[list[str | int]], Path]:
    """Folder by folder, and names as people sort them, numbers by their value."""
    parts = [re.split("([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(part)] for part in parts], path
