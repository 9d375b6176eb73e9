"""bundle.json."""

from pathlib import Path

from smolvlm_edge.bundle import MANIFEST, Bundle
from tests.fuzz.parsers import TESTS

BUNDLE = TESTS.parent / "demo" / "bundle"


def seeds(_: Path) -> list[bytes]:
    return [(BUNDLE / MANIFEST).read_bytes()]


def parse(data: bytes, folder: Path) -> None:
    for file in BUNDLE.iterdir():
        if file.name != MANIFEST and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    (folder / MANIFEST).write_bytes(data)
    Bundle.open(folder)
