"""Tiny videos, made with PyAV: the grey level of a frame tells its number."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

STEP = 6
"""Grey levels between two frames; a codec may be off by two."""
SOUND_RATE, BLOCK = 8000, 1024
"""Samples per second, and in one packet."""


def frame(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Frame `number` as uint8 [H, W, 3]; levels begin anew after 40 frames."""
    return np.full((size[1], size[0], 3), STEP * (number % 40), np.uint8)


def number_of(picture: Image.Image) -> int:
    """Which frame a picture is, of the 40 levels."""
    return round(np.asarray(picture.convert("L"))[4:-4, 4:-4].mean() / STEP)


def write_clip(
    path: Path,
    frames: int | Sequence[np.ndarray] = 40,
    *,
    rate: float = 10,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    milliseconds: Sequence[int] | None = None,
    rotation: int = 0,
    sound_s: float = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video.

    Args:
        path: Its suffix decides on the format.
        frames: Frames of uint8 [H, W, 3], or how many of `frame(number)`.
        rate: Frames per second.
        codec: FFmpeg's name.
        pixel_format: FFmpeg's name.
        gop: Frames from one keyframe to the next.
        milliseconds: When each frame is shown, for a variable frame rate.
        rotation: Degrees counterclockwise that a player turns the picture by.
        sound_s: Length of a sound track.
        options: Of the container.
    """
    pictures = [frame(number) for number in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size, stream.bit_rate = pixel_format, gop, 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=SOUND_RATE) if sound_s else None
        for number, pixels in enumerate(pictures):
            made = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            made.pts = milliseconds[number] if milliseconds else number
            container.mux(stream.encode(made))
        container.mux(stream.encode())
        if sound:
            _mux_silence(container, sound, sound_s)
    return path


def write_sound(path: Path, seconds: float = 1) -> Path:
    """Write a file without pictures."""
    with av.open(str(path), "w") as container:
        _mux_silence(container, container.add_stream("aac", rate=SOUND_RATE), seconds)
    return path


def _mux_silence(container: Any, stream: Any, seconds: float) -> None:
    for block in range(round(seconds * SOUND_RATE / BLOCK)):
        silence = av.AudioFrame.from_ndarray(np.zeros((1, BLOCK), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = SOUND_RATE, BLOCK * block
        container.mux(stream.encode(silence))
    container.mux(stream.encode())


def write_gif(path: Path, frames: int = 6, milliseconds: int | list[int] = 500, **options: Any) -> Path:
    """Write an animation by Pillow; its format is the suffix's."""
    first, *others = (Image.fromarray(frame(number)) for number in range(frames))
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0, **options)
    return path


def write_frames(folder: Path, frames: int = 5, name: str = "frame-{}.png") -> Path:
    """Fill a folder with numbered frames."""
    folder.mkdir()
    for number in range(frames):
        Image.fromarray(frame(number)).save(folder / name.format(number + 8))
    return folder
