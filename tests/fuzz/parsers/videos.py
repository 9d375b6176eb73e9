"""Videos and animations."""

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from smolvlm_edge.bundle.config import VideoConfig
from smolvlm_edge.pictures.video import Video, read_clip
from tests.fuzz.parsers import TESTS, TINY

CONFIG = VideoConfig.from_folder(TINY)


def seeds(folder: Path) -> list[bytes]:
    sys.path.insert(0, str(TESTS))
    from clips import write_clip  # noqa: PLC0415 - it needs PyAV

    made = []
    for name in ("clip.mp4", "clip.mkv", "clip.avi"):
        write_clip(folder / name)
        made.append((folder / name).read_bytes())
    file = BytesIO()
    frames = [Image.new("RGB", (30, 20), (shade, 0, 0)) for shade in (0, 90, 180)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=400)
    return [*made, file.getvalue()]


def parse(data: bytes, _: Path) -> None:
    read_clip(Video(data, frames=3), CONFIG)
