"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


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
    folder = out.parent / f".{out.name}.{uuid4().hex[:8]}.partial"
    try:
        folder.mkdir(parents=True)
        yield folder
        _move_into_place(folder, out, force=force)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def _move_into_place(folder: Path, out: Path, *, force: bool) -> None:
    if not (force and out.exists()):
        folder.rename(out)  # fails if somebody has put something there in the meantime
        return
    replaced = folder.with_suffix(".replaced")
    try:
        out.rename(replaced)
        folder.rename(out)
    finally:
        if not out.exists():
            replaced.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
