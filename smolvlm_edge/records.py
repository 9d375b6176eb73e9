"""JSON lines that outlive a killed run: the first says what they were made with, every other one is a result."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from smolvlm_edge.errors import RequestError

Line = dict[str, Any]
LONGEST_SHOWN = 60
"""Characters of a value in a message; hashes are longer."""


@dataclass(frozen=True, slots=True)
class Records:
    """The lines of earlier runs, and a place for new ones."""

    lines: list[Line]
    file: BinaryIO

    def add(self, line: Line) -> None:
        """Write a line; from here on, killing this process does not lose it."""
        self.file.write(_encoded(line))
        self.file.flush()


@contextmanager
def open_records(
    path: Path,
    begin: Line,
    option: str,
    is_whole: Callable[[Line], bool],
    keep: Callable[[Line], bool] = lambda _: True,
) -> Iterator[Records]:
    """Start a file or continue one; a line that a killed run left half-written is removed.

    Args:
        path: The file; while it is open, no other run may write it.
        begin: What the lines depend on; its first key tells such a file from any other.
        option: Which option names the file, for messages.
        is_whole: Whether a line is a result.
        keep: Whether a result of an earlier run stays in the file.

    Raises:
        RequestError: The file was made with something else, is something else, or cannot be written.
    """
    check_place(path, option)
    with _locked(path, option):
        try:
            kept = [line for line in _read(path, begin, option, is_whole) if keep(line)]
            _write(path, [begin, *kept])
            file = path.open("ab")
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror or error}; name another file with {option}") from error
        with file:
            yield Records(kept, file)


def check_place(path: Path, option: str) -> None:
    """Refuse what can be no such file; for who is about to do something long before it is opened.

    Raises:
        RequestError: Its folder is missing, or there is something else of that name.
    """
    if not os.path.isdir(path.parent):  # noqa: PTH112 - as PTH113, see pyproject.toml
        raise RequestError(f"{path.parent} is no folder: make it, or name another file with {option}")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110
        raise RequestError(f"{path} is no file: name another one with {option}")


@contextmanager
def _locked(path: Path, option: str) -> Iterator[None]:
    hidden = path.with_name(f".{path.name}.lock")
    lock = FileLock(hidden)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(f"another run is writing {path}: wait for it, or name another file with {option}") from None
    except OSError as error:
        raise RequestError(f"{hidden}: {error.strerror or error}; name another file with {option}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes it with the release
            hidden.unlink()
        lock.release()


def _read(path: Path, begin: Line, option: str, is_whole: Callable[[Line], bool]) -> list[Line]:
    """The results in the file; the end of it that a killed run did not finish is left out."""
    data = path.read_bytes() if path.exists() else b""
    first, *others = data.splitlines(keepends=True) or [b""]
    if not first.endswith(b"\n") and _encoded(begin).startswith(first):  # nothing, or killed at once
        return []
    _check_first(path, _decoded(first), begin, option)
    lines = [_decoded(line) for line in others if line.endswith(b"\n")]
    for number, line in enumerate(lines, 2):
        if not is_whole(line):
            raise RequestError(f"{path}, line {number} is damaged: remove that line to have it made again")
    return lines


def _check_first(path: Path, found: Line, begin: Line, option: str) -> None:
    if next(iter(begin)) not in found:
        raise RequestError(f"{path} holds something other than results: name another file with {option}")
    differing = [_difference(key, found.get(key), begin[key]) for key in begin if found.get(key) != begin[key]]
    if differing:
        raise RequestError(
            f"{path} is of another run, which differs in {', '.join(differing)}: "
            f"repeat that run, or name another file with {option}"
        )


def _difference(key: str, there: Any, here: Any) -> str:
    values = [json.dumps(value, ensure_ascii=False) for value in (there, here)]
    return key if max(map(len, values)) > LONGEST_SHOWN else f"{key} ({values[0]} there, {values[1]} here)"


def _write(path: Path, lines: list[Line]) -> None:
    """Put these lines in place of the file, at once, unless they are what it holds."""
    data = b"".join(map(_encoded, lines))
    if path.exists() and path.read_bytes() == data:
        return
    target = path.resolve()  # a link stays one
    if target.is_symlink():  # to itself; before Python 3.13, resolve says so
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(data)
    if target.exists():
        shutil.copymode(target, partial)
    partial.replace(target)


def _decoded(line: bytes) -> Line:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _encoded(line: Line) -> bytes:
    try:
        text = json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a file's name that is no Unicode
        text = json.dumps(line).encode()
    return text + b"\n"
