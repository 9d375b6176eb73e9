"""config.json and generation_config.json."""

from pathlib import Path

from smolvlm_edge.bundle.config import ModelConfig
from tests.fuzz.parsers import tiny


def seeds(_: Path) -> list[bytes]:
    return tiny("config.json", "config.json", "generation_config.json")


def parse(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    (folder / "generation_config.json").write_bytes(data[: len(data) if data[:60].find(b"eos") > 0 else 2] or b"{}")
    config = ModelConfig.from_folder(folder)
    ModelConfig.from_dict(config.to_dict())
    _ = config.image_seq_len, config.vision.patches_per_side
