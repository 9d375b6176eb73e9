"""A module a parser: `seeds(folder)` gives sound inputs, `parse(data, folder)` reads a damaged one."""

import json
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent.parent
TINY = TESTS / "checkpoints" / "tiny-idefics3"
EXAMPLES = TESTS.parent / "examples"


def as_json(*values: Any) -> list[bytes]:
    """Each as JSON."""
    return [json.dumps(value).encode() for value in values]


def tiny(*names: str) -> list[bytes]:
    """Files of a tiny checkpoint."""
    return [(TINY / name).read_bytes() for name in names]


def link_tiny(folder: Path, but: str) -> None:
    """The tiny checkpoint's small files in a folder, but one."""
    for file in TINY.iterdir():
        place = folder / file.name
        if file.name != but and not place.exists():
            place.symlink_to(file)
