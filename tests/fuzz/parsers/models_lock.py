"""models.lock."""

from pathlib import Path

from smolvlm_edge.store import lockfile
from tests.fuzz.parsers import TESTS


def seeds(_: Path) -> list[bytes]:
    return [(TESTS.parent / "models.lock").read_bytes()]


def parse(data: bytes, folder: Path) -> None:
    (folder / "models.lock").write_bytes(data)
    lockfile.PLACES = (folder / "models.lock",)
    lockfile.locked_models.cache_clear()
    for model in lockfile.locked_models().values():
        _ = model.hashed, model.exact, model.weight_bytes, model.to_toml()
