"""How long each frame of an animated GIF, PNG or WebP file is shown, read without decoding one."""

import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from smolvlm_edge.pictures.png import chunks
from smolvlm_edge.pictures.sources import head_of

GIF_IMAGE, GIF_EXTENSION, GIF_CONTROL = 0x2C, 0x21, 0xF9
MAX_FRAMES = 20_000
"""An animation of more is read no further."""


def durations_ms(file: Path | BytesIO, most: int = MAX_FRAMES) -> list[int] | None:
    """Milliseconds for each frame, 0 where the file does not say; None for another format.

    Frames are counted as Pillow counts them: a PNG's default picture is one.
    """
    head = head_of(file, 16)
    if head.startswith((b"GIF87a", b"GIF89a")):
        walk = _of_gif
    elif head.startswith(b"\x89PNG"):
        walk = _of_png
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        walk = _of_webp
    else:
        return None
    if isinstance(file, BytesIO):
        file.seek(0)
        return list(islice(walk(file), most))
    with file.open("rb") as stream:
        return list(islice(walk(stream), most))


def _of_gif(stream: BinaryIO) -> Iterator[int]:
    head, duration = stream.read(13), 0
    stream.seek(_table_bytes(head[10:11]), 1)
    while block := stream.read(1):
        if block[0] == GIF_EXTENSION:
            kind = stream.read(1)
            size = stream.read(1)
            data = stream.read(size[0]) if size else b""
            if kind and kind[0] == GIF_CONTROL and len(data) >= 4:
                duration = 10 * int.from_bytes(data[1:3], "little")
            if data:
                _skip_blocks(stream)
        elif block[0] == GIF_IMAGE:
            stream.seek(_table_bytes(stream.read(9)[8:9]) + 1, 1)
            _skip_blocks(stream)
            yield duration
            duration = 0
        elif block != b"\0":
            return


def _table_bytes(flags: bytes) -> int:
    """Bytes of a colour table."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _skip_blocks(stream: BinaryIO) -> None:
    while (size := stream.read(1)) and size[0]:
        stream.seek(size[0], 1)


def _of_png(stream: BinaryIO) -> Iterator[int]:
    animated, default_picture = False, True
    for kind, _ in chunks(stream):
        if kind == b"acTL":
            animated = True
        elif kind == b"fcTL" and animated:
            data = stream.read(26)
            if len(data) < 26:
                return
            numerator, denominator = struct.unpack(">HH", data[20:24])
            default_picture = False
            yield round(1000 * numerator / (denominator or 100))
        elif kind == b"IDAT" and default_picture:
            default_picture = False
            yield 0
            if not animated:
                return


def _of_webp(stream: BinaryIO) -> Iterator[int]:
    place, count = 12, 0
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            break
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"ANMF":
            count += 1
            yield int.from_bytes(stream.read(16)[12:15], "little")
        place += 8 + length + length % 2
    if not count:
        yield 0
