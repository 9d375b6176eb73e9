"""Hashes of downloaded files, computed once: a file of the same size and time of change is not read again."""

import json
import os
from contextlib import suppress
from pathlib import Path

from smolvlm_edge.bundle import sha256
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.store.lockfile import LockedFile

HOME_VARIABLE = "SMOL_EDGE_HOME"


def home() -> Path:
    """Where smol-edge keeps what it makes: SMOL_EDGE_HOME, or the user's cache folder."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen)
    try:
        from platformdirs import user_cache_path  # noqa: PLC0415 - see below
    except ImportError:  # left out by an application that opens folders: it makes nothing that would be kept
        return Path("~/.cache/smol-edge").expanduser()
    return user_cache_path("smol-edge")


def check_file(path: Path, expected: LockedFile, *, missing: str, changed: str, again: bool = False) -> None:
    """Compare a file's size and, if it is known, its sha256; `missing` and `changed` say what to do.

    A file that was read before and has the same size and time of change is not read again, unless `again`.

    Raises:
        IntegrityError: The file is missing or another one.
    """
    try:
        status = path.stat()
    except OSError:
        raise IntegrityError(f"{path} is missing: {missing}") from None
    if status.st_size != expected.size:
        raise IntegrityError(f"{path} has {status.st_size} bytes, models.lock says {expected.size}: {changed}")
    if expected.sha256 and _sha256(path, status, again=again) != expected.sha256:
        raise IntegrityError(f"{path} is not the file that models.lock names (its sha256 differs): {changed}")


def _sha256(path: Path, status: os.stat_result, *, again: bool) -> str:
    """The hash of a file, from memory if the file has not been touched since."""
    key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
    known = _known()
    entry = known.get(key, [])
    if not again and len(entry) == 3 and entry[:2] == stamp:
        return str(entry[2])
    digest = sha256(path)
    _remember({**_known(), key: [*stamp, digest]})
    return digest


def _known() -> dict[str, list[object]]:
    try:
        found = json.loads((home() / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, list)} if isinstance(found, dict) else {}


def _remember(known: dict[str, list[object]]) -> None:
    """Whole or not at all; where the folder cannot be written, the next run computes the hashes again."""
    with suppress(OSError):
        home().mkdir(parents=True, exist_ok=True)
        staged = home() / f".verified.{os.getpid()}.json"
        staged.write_text(json.dumps(known), encoding="utf-8")
        staged.replace(home() / "verified.json")
