"""Folders that appear whole or not at all, beside what other processes do and after some of them were killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A private folder that becomes `folder` when the block ends well, and vanishes when it does not.

    If another process was sooner, its folder stays. A lock beside the private folder tells that somebody is at it: what
    a killed process left behind goes when the next one begins.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    private = folder.parent / f".{uuid4().hex[:12]}.staged"
    lock = FileLock(_lock(private))
    with lock:
        private.mkdir()
        try:
            yield private
            with suppress(OSError):  # it is there already; on Windows, something of it is open
                private.rename(folder)
        finally:
            shutil.rmtree(private, ignore_errors=True)
            with suppress(OSError):  # Windows deletes it with the release
                os.unlink(_lock(private))  # noqa: PTH108 - a name, as the lock has it


def sweep(parent: Path) -> None:
    """Delete the private folders of processes that are gone."""
    for private in parent.glob(".*.staged"):
        lock = FileLock(_lock(private))
        with suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            shutil.rmtree(private, ignore_errors=True)
            with suppress(OSError):
                os.unlink(_lock(private))  # noqa: PTH108
            lock.release()


def _lock(private: Path) -> str:
    return f"{private}.lock"
