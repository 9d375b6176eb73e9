"""PNG files whose metadata Pillow would refuse: colour profiles and texts of more than 1 MB once unpacked."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PACKED = {b"iCCP", b"zTXt", b"iTXt", b"tEXt"}
"""Chunks that are not needed for the pixels. EXIF has one of its own, which stays."""
LONGEST = 1 << 20  # Pillow's PngImagePlugin.MAX_TEXT_CHUNK
LONGEST_TOGETHER = 1 << 24  # a quarter of Pillow's MAX_TEXT_MEMORY


def without_large_metadata(file: Path | BytesIO) -> Path | BytesIO:
    """The same file; without its profile and texts if these are too large for Pillow."""
    stream = file.open("rb") if isinstance(file, Path) else file
    try:
        if not _is_large(stream):
            return file
        kept = BytesIO()
        kept.write(SIGNATURE)
        for kind, length in chunks(stream):
            data = stream.read(length + 4)
            if kind not in PACKED:
                kept.write(struct.pack(">I", length) + kind + data)
        kept.seek(0)
        return kept
    finally:
        if isinstance(file, Path):
            stream.close()
        else:
            file.seek(0)


def _is_large(stream: BinaryIO) -> bool:
    together = 0
    for kind, length in chunks(stream):
        if kind in PACKED:
            size = _unpacked_size(stream.read(length))
            together += size
            if size > LONGEST or together > LONGEST_TOGETHER:
                return True
    return False


def _unpacked_size(data: bytes) -> int:
    """Bytes of a chunk once unpacked, counted no further than is needed to tell that they are too many."""
    size = len(data)
    for start in _zlib_streams(data):
        try:
            size = max(size, len(zlib.decompressobj().decompress(data[start:], LONGEST + 1)))
        except zlib.error:
            continue
    return size


def _zlib_streams(data: bytes) -> Iterator[int]:
    """Where packed bytes may begin: behind one of the first four NULs (keyword, method, language, translation)."""
    place = -1
    for _ in range(4):
        place = data.find(b"\0", place + 1)
        if place < 0:
            return
        yield from (place + 1, place + 2)


def chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(kind, length) of each chunk, the stream standing at its data."""
    place = len(SIGNATURE)
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        (length,), kind = struct.unpack(">I", head[:4]), head[4:]
        yield kind, length
        place += length + 12
