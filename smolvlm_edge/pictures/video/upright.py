"""A decoded frame -> an RGB picture, turned and mirrored as its display matrix says."""

import struct
from typing import TYPE_CHECKING, cast

from PIL import Image

from smolvlm_edge.errors import VideoError
from smolvlm_edge.pictures.pixels import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from av import VideoFrame
    from av.buffer import Buffer

IDENTITY = (1, 0, 0, 1)
TURNS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""By the signs of a, b, c, d of FFmpeg's display matrix (libavutil/display.h): what is at (x, y) is shown at
(a x + c y, b x + d y). PyAV's `rotation` knows no mirrors."""


def upright(frame: "VideoFrame") -> Image.Image:
    """The frame as RGB, as a player shows it; turned by quarters, never by less.

    Raises:
        VideoError: It is larger than the file said, and too large.
    """
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(f"a frame of the video has more than {MAX_PIXELS:,} pixels: make it smaller first")
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = TURNS.get(_signs(frame))
    return image if turn is None else image.transpose(turn)


def _signs(frame: "VideoFrame") -> tuple[int, int, int, int]:
    known = cast("Mapping[str, Buffer]", frame.side_data)  # PyAV's stubs know of motion vectors alone
    data = bytes(known.get("DISPLAYMATRIX", b""))
    if len(data) < 36:
        return IDENTITY
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    largest = max(map(abs, (a, b, c, d)))
    return _sign(a, largest), _sign(b, largest), _sign(c, largest), _sign(d, largest)


def _sign(value: int, largest: int) -> int:
    return (value > 0) - (value < 0) if 2 * abs(value) > largest else 0
