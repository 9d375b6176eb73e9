"""adapter_config.json of PEFT."""

from pathlib import Path

from smolvlm_edge.export.adapter_config import ADAPTER_CONFIG, AdapterConfig
from tests.fuzz.parsers import TESTS


def seeds(_: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((TESTS / "adapters").glob("*.json"))]


def parse(data: bytes, folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_bytes(data)
    AdapterConfig.from_folder(folder)
