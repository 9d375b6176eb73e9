"""Mutated picture and video files: each is read, or refused by an ImageError; nothing else, and nothing is echoed.

    python tests/fuzz/picture_files.py 1000 [SEED]

prints a line for each kind of file with how many were read and refused.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).parent.parent))
from clips import write_clip, write_gif

from smolvlm_edge.bundle.config import VideoConfig
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.pictures import pixels
from smolvlm_edge.pictures.images import grid_of, open_image
from smolvlm_edge.pictures.video import Video, as_video, pictures, read_clip

RULES = VideoConfig.from_folder(Path(__file__).parent.parent / "released" / "smolvlm2-256m-video-instruct")
NASTY = (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\xfc\xe4")
VIDEOS = {
    "mp4": {},
    "mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "avi": {"codec": "mpeg4"},
    "ts": {},
    "flv": {},
    "webm": {"codec": "libvpx-vp9"},
}


def _encoded(image: Image.Image, container: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


@cache
def sound_files() -> dict[str, bytes]:
    """Small files of every kind by name."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 24, 3), np.uint8))
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = colours.convert("RGBA")
    files = {
        "png": _encoded(colours, "PNG", exif=exif, icc_profile=bytes(300)),
        "png16": _encoded(deep, "PNG"),
        "palette": _encoded(colours.quantize(16), "PNG", transparency=3),
        "jpeg": _encoded(colours, "JPEG", exif=exif),
        "progressive": _encoded(colours, "JPEG", progressive=True),
        "jpeg2000": _encoded(colours, "JPEG2000"),
        "tiff": _encoded(deep, "TIFF", compression="tiff_lzw"),
        "float": _encoded(Image.fromarray(np.float32(np.eye(9))), "TIFF"),
        "bmp": _encoded(alpha, "BMP"),
        "tga": _encoded(alpha, "TGA", compression="tga_rle"),
        "ico": _encoded(alpha.resize((32, 32)), "ICO", sizes=[(16, 16), (32, 32)]),
        "pgm": _encoded(deep, "PPM"),
        "webp": _encoded(alpha, "WEBP"),
    }
    if features.check("avif"):
        files["avif"] = _encoded(colours, "AVIF")
    with tempfile.TemporaryDirectory() as folder:
        for suffix, options in {"gif": {}, "png": {}, "webp": {"lossless": True}}.items():
            files[f"animated {suffix}"] = write_gif(Path(folder) / f"a.{suffix}", 5, **options).read_bytes()
        for suffix, options in VIDEOS.items():
            files[suffix] = write_clip(Path(folder) / f"a.{suffix}", 12, rate=5, **options).read_bytes()
    return files


def mutations(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(kind of file, damaged bytes), the same ones for the same seed."""
    dice, files = random.Random(seed), list(sound_files().items())
    for number in range(count):
        name, data = files[number % len(files)]
        yield name, _damaged(data, dice)


def _damaged(data: bytes, dice: random.Random) -> bytes:
    file = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        if not file:
            break
        place = dice.randrange(min(len(file), dice.choice((64, 256, 100_000))))  # headers first
        match dice.randrange(6):
            case 0 | 1:
                file[place] = dice.randrange(256)
            case 2:
                file[place : place + 4] = dice.choice(NASTY)
            case 3:
                file[place : place + dice.randrange(9)] = dice.randbytes(dice.randrange(9))
            case 4:
                file[place:place] = file[place : place + dice.randrange(64)]
            case 5:
                del file[max(place, 1) :]
    return bytes(file)


def check(data: bytes) -> bool:
    """Read a file in every way that an answer does; whether it was read. Anything foreign is raised."""
    try:
        video = as_video(data)
        if video is None:
            grid_of(data, RULES.frame)
            assert open_image(data).mode == "RGB"
        else:
            assert read_clip(Video(data, frames=3), RULES).frames
    except (ImageError, RequestError) as error:
        message = str(error)
        assert len(message) < 1000, message
        assert message.isprintable(), message
        return False
    return True


def main(count: int, seed: int) -> None:
    """Check so many files."""
    pixels.MAX_PIXELS = pixels.MAX_JPEG_PIXELS = 1_000_000  # a header may claim much that is no bomb yet
    pictures.MAX_PIXELS_TOGETHER = 10_000_000
    read, refused = Counter[str](), Counter[str]()
    for name, data in mutations(count, seed):
        try:
            (read if check(data) else refused)[name] += 1
        except BaseException:
            Path(tempfile.gettempdir(), f"smol-edge-{name.replace(' ', '-')}.bin").write_bytes(data)
            raise
    for name in sound_files():
        print(f"{name}: {read[name]} read, {refused[name]} refused")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
