"""preprocessor_config.json, and the first tile cut by it."""

from pathlib import Path

from PIL import Image

from smolvlm_edge.bundle.config import ImageConfig, VideoConfig
from smolvlm_edge.pictures.images import cut
from tests.fuzz.parsers import tiny

PICTURE = Image.new("RGB", (70, 40))


def seeds(_: Path) -> list[bytes]:
    return tiny("preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


def parse(data: bytes, folder: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).write_bytes(data if name[:6] == "prepro" else b"{}")
    config = ImageConfig.from_folder(folder)
    VideoConfig.from_folder(folder)
    next(iter(cut(PICTURE, config).pixel_values()))
