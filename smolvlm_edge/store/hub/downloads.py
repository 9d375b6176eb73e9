"""One file of the hub -> the library's cache, believing nothing of what the hub says of it.

A download goes on where another one was stopped; the library would begin again: it writes to a file of a new name each
time, and deletes it when it is stopped.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import _create_symlink, http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from smolvlm_edge.bundle import sha256
from smolvlm_edge.errors import DownloadError
from smolvlm_edge.store.hub.cache import lock_of, repository, snapshot
from smolvlm_edge.store.hub.retries import patiently, within

SMALL_BYTES, WEIGHT_BYTES = 64 << 20, 1 << 38
"""The most that a file may have."""
SHA256 = re.compile("[0-9a-f]{64}")


def fetch(repo: str, commit: str, name: str, limit: int) -> None:
    """Bring one file into the cache as the library would, but believe nothing of what the hub says of it.

    The library takes the ETag for a path, whatever it holds, and asks for it anew with every call.
    """
    check_name(name)
    url = hf_hub_url(repo, name, revision=commit)
    found = within(lambda: get_hf_file_metadata(url))
    if found.size is not None and found.size > limit:
        raise DownloadError(f"{repo}: {name} has {found.size:,} bytes, and {limit:,} are the most that it may have")
    blob = repository(repo) / "blobs" / _blob_name(found.etag)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_of(blob)):
        if not blob.exists():
            patiently(partial(_go_on, url, name, blob, found.size, limit))
    pointer = snapshot(repo, commit) / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    _create_symlink(str(blob), str(pointer), new_blob=False)


def check_name(name: str) -> None:
    """A file's name in a listing comes from the network too, and becomes a path.

    Raises:
        DownloadError: It is no plain name.
    """
    if Path(name).name != name or name in {"", ".", ".."} or "\\" in name or not name.isprintable():
        raise DownloadError(f"the hub lists a file of the name {name[:80]!r}, which is none")


@contextmanager
def no_bar() -> Iterator[None]:
    """Show no progress inside, for what takes no time worth a bar."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _blob_name(etag: str | None) -> str:
    """A blob's name in the cache comes from the network."""
    if etag is None or not re.fullmatch(r"[\w-]{1,128}", etag, re.ASCII):
        raise DownloadError(f"the hub gave a file no usable ETag ({str(etag)[:80]!r})")
    return etag


class _Bounded:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: BinaryIO, limit: int, name: str) -> None:
        self._file, self._limit, self._name = file, limit, name

    def write(self, data: bytes) -> int:
        """Append, as long as there is room."""
        if self._file.tell() + len(data) > self._limit:
            raise DownloadError(f"{self._name} goes on beyond the {self._limit:,} bytes that it may have")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _go_on(url: str, name: str, blob: Path, size: int | None, limit: int) -> None:
    part = blob.with_name(f"{blob.name}.part")
    with part.open("ab") as file:
        if size is None or file.tell() > size:  # no telling whether it is a part of that file
            file.truncate(0)
            file.seek(0)
        # the HTTP library sends the token to the hub and not on to where that redirects
        headers, bounded = build_hf_headers(), _Bounded(file, limit if size is None else size, name)
        with no_bar() if limit == SMALL_BYTES else nullcontext():
            http_get(
                url,
                bounded,  # type: ignore[arg-type]  # as much of a file as is used
                resume_size=file.tell(),
                expected_size=size,
                headers=headers,
                displayed_filename=name,
            )
    if SHA256.fullmatch(blob.name) and sha256(part) != blob.name:  # stopped hard once, or another file
        part.unlink()
        raise DownloadError(f"{name} arrived damaged: repeat the command")
    part.replace(blob)


def remove_part(part: Path) -> int:
    """Delete a part of a download that was stopped, unless another process is at it; its bytes."""
    size = part.stat().st_size
    try:
        with FileLock(lock_of(part.with_suffix("")), timeout=0):
            part.unlink()
    except Timeout:
        return 0
    return size
