"""The files of a commit, kept beside it in the hub's cache where the library, before 2.0, keeps no list of them.

Without one, nobody could say offline whether a checkpoint is all there. It has a name of its own, so that a newer
library, which looks into the same folder, does not take it for one of its own.
"""

import json
import os
from contextlib import suppress
from pathlib import Path


def kept(cache: Path, commit: str) -> dict[str, int] | None:
    """Paths and bytes of a commit's files, if they were kept in a repository's cache folder."""
    with suppress(OSError, ValueError):
        listing = json.loads(_file(cache, commit).read_text(encoding="utf-8"))
        return {str(name): int(size) for name, size in listing.items()}
    return None


def keep(cache: Path, commit: str, listing: dict[str, int]) -> None:
    """Remember them."""
    file = _file(cache, commit)
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    staged.write_text(json.dumps(listing), encoding="utf-8")
    staged.replace(file)


def _file(cache: Path, commit: str) -> Path:
    return cache / "trees" / f"{commit}.smol-edge.json"
