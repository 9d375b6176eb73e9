"""Folders that appear whole or not at all, beside what other processes do and after some of them were killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A private folder that becomes `folder` when the block ends well, and vanishes when it does not.

    If another process was sooner, its folder stays.
    """
    with private_folder(folder) as private:
        yield private
        with suppress(OSError):  # it is there already; on Windows, something of it is open
            private.rename(folder)


@contextmanager
def private_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the one that it is to become; it vanishes with the block, unless it was moved.

    A lock beside it tells that somebody is at it: what a killed process left behind goes when the next one begins.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    private = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    with FileLock(_lock(private)):
        private.mkdir()
        try:
            yield private
        finally:
            shutil.rmtree(private, ignore_errors=True)
            with suppress(OSError):  # Windows deletes it with the release
                os.unlink(_lock(private))  # noqa: PTH108 - a name, as the lock has it


def sweep(parent: Path) -> None:
    """Delete the private folders of processes that are gone: those whose lock nobody holds."""
    for left in parent.glob(f".*.partial{LOCK}"):
        lock = FileLock(left)
        with suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            with suppress(OSError):
                os.unlink(left)  # noqa: PTH108
            lock.release()


def _lock(private: Path) -> str:
    return f"{private}{LOCK}"
