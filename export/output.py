"""The frame of every export: an output that is in the way is refused, a folder appears whole or not at all."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from smolvlm_edge.errors import ExportError, RequestError, SmolEdgeError
from smolvlm_edge.store.staging import private_folder


def check_free(out: Path, kind: str, foreign: Callable[[Path], str | None], *, force: bool) -> None:
    """Refuse an output that is in the way.

    Args:
        out: The folder to make, resolved: what a symbolic link points at is replaced, not the link.
        kind: What may be replaced, for the message.
        foreign: Says of a folder that stands there why it is something else; None if it may be replaced.
        force: Whether it may be replaced.

    Raises:
        RequestError: `out` exists and `force` is not set, or it is something else.
    """
    if not os.path.lexists(out):
        return
    if not force:
        raise RequestError(f"{out} exists: choose another --out, or replace it with --force")
    reason = foreign(out) if out.is_dir() else "it is a file"
    if reason is not None:
        raise RequestError(f"{out} is no {kind} ({reason}), so --force does not replace it: choose another --out")


def unknown_file(folder: Path, known: Collection[str]) -> str | None:
    """What in a folder, at any depth, is none of the known files and would be lost with it; None if there is nothing.

    Args:
        folder: Where to look.
        known: Paths within it, with slashes.
    """
    files = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return next((f"it holds {name}" for name in files if name not in known), None)


@contextmanager
def written(out: Path, *, force: bool) -> Iterator[Path]:
    """As `staged` where `out` points to, with errors in a user's words.

    Raises:
        ExportError: It cannot be written, or memory ran out.
    """
    try:
        with staged(out.resolve(), force=force) as folder, known_as({folder: out}):
            yield folder
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error} (nothing was left behind)") from error
    except MemoryError as error:
        raise ExportError(f"not enough memory to export to {out} (nothing was left behind)") from error


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """A hidden folder beside `out` that becomes `out` on success and vanishes on any failure.

    Args:
        out: Where it is to stand; folders above it are made, and vanish with it. What a symbolic link points at is
            not looked for: pass a resolved path to keep the link.
        force: Replace what stands there. On a failure that comes back.

    Raises:
        OSError: It cannot be written, or without `force`, something stands there by now.
    """
    made = [parent for parent in out.parents if not os.path.lexists(parent)]  # the innermost first
    try:
        with private_folder(out) as folder:
            _restore(out)
            yield folder
            _move_into_place(folder, out, force=force)
    except BaseException:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


@contextmanager
def known_as(names: Mapping[Path, Path]) -> Iterator[None]:
    """Errors about files in a hidden folder name the places that the user knows; the first that fits comes first."""
    try:
        yield
    except SmolEdgeError as error:
        message = str(error)
        for hidden, known in names.items():
            message = message.replace(str(hidden), str(known))
        if message == str(error):
            raise
        raise type(error)(message) from error


def _move_into_place(folder: Path, out: Path, *, force: bool) -> None:
    if not (force and out.exists()):
        folder.rename(out)  # fails if somebody has put something there in the meantime
        return
    replaced = _replaced(out)
    try:
        out.rename(replaced)
        folder.rename(out)
    finally:
        if not out.exists():
            replaced.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)


def _restore(out: Path) -> None:
    """Undo what an export did that was killed between its two renames."""
    replaced = _replaced(out)
    with suppress(OSError):  # there is none, or there is an output
        if not os.path.lexists(out):
            replaced.rename(out)


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")
