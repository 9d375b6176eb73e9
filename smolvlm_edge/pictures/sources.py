"""What a picture may be given as -> an open Pillow image; what goes wrong meanwhile -> one clear ImageError."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from smolvlm_edge.errors import ImageError
from smolvlm_edge.pictures.pixels import MAX_PIXELS
from smolvlm_edge.pictures.png import without_large_metadata

ImageSource = (
    str | PathLike[str] | bytes | bytearray | memoryview | BinaryIO | BytesIO | Image.Image | npt.NDArray[np.uint8]
)
"""A path; the bytes of a file; a file open for reading in binary, which is read from its beginning; a Pillow image; or
a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats that are decoded by a library in this process; EPS, for one, would start another program. Phones'
MPO counts as JPEG. HEIC comes with the extra [heic]."""
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
HEIC_HINT = "pip install 'smol-edge[heic]'"
MAX_FILE_BYTES = 256 << 20
"""Of a file that comes as a stream, and so has to be held."""
MAX_SHOWN = 300
"""Characters of a name in a message."""


class _QuietWarnings:
    """Pillow's warnings kept quiet while any thread decodes: damaged metadata costs nobody the picture.

    Filters belong to the whole process; the lock guards the counting alone, never the decoding.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._filters = Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_quiet_warnings = _QuietWarnings()


def held(source: Any) -> Any:
    """A source whose bytes can be read again: what is open is read to its end, anything else stays as it is.

    Raises:
        ImageError: It is open as text, closed, or longer than 256 MB.
    """
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, Image.Image) or not callable(getattr(source, "read", None)):
        return source
    try:
        if source.seekable():
            source.seek(0)
        data = source.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, AttributeError) as error:
        raise ImageError(f"the open file cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise ImageError("the open file gives text: open it in binary, as in open(name, 'rb')")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"the open file holds more than {MAX_FILE_BYTES >> 20} MB")
    return data


def readable(source: Any) -> BytesIO | Path:
    """A path or the bytes of a file as something to open.

    Raises:
        ImageError: It is neither, missing, empty, a folder, out of reach or no regular file: a pipe may never end.
    """
    if not isinstance(source, str | PathLike | bytes):
        kind = type(source).__name__
        raise ImageError(f"a picture is a path, bytes, an open file, a Pillow image or a numpy array, not {kind}")
    if isinstance(source, bytes):
        if not source:
            raise ImageError("the picture is empty (0 bytes)")
        return BytesIO(source)
    path, name = Path(source), shown(source)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if S_ISDIR(status.st_mode):
        raise ImageError(f"{name} is a folder, not a picture")
    if not S_ISREG(status.st_mode):
        raise ImageError(f"{name} is a pipe or a device, not a file: pipe it into - or pass its bytes")
    if status.st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes)")
    return path


@contextmanager
def opened(file: BytesIO | Path) -> Iterator[Image.Image]:
    """A picture's file, its head read and nothing decoded yet. For use within `decoding`."""
    head = head_of(file, 32)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and b"avi" not in head[12:]:
        _allow_heic()
    if head.startswith(b"\xff\xd8\xff"):  # not by Image.open, which refuses 200 megapixels before a draft can be asked
        with JpegImageFile(file) as image:
            yield image
        return
    source = without_large_metadata(file) if head.startswith(b"\x89PNG") else file
    with Image.open(source, formats=known_formats()) as image:
        yield image


def head_of(file: BytesIO | Path, count: int) -> bytes:
    """The first bytes of a file."""
    if isinstance(file, BytesIO):
        return bytes(file.getbuffer()[:count])
    with file.open("rb") as stream:
        return stream.read(count)


@contextmanager
def decoding(name: object) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file, and the system on one out of reach, into an ImageError.

    An ImageError from within says what is wrong with `name` without naming it, as in "has no pixels".
    """
    name = shown(name)
    with _quiet_warnings:
        try:
            yield
        except ImageError as error:
            raise type(error)(f"{name} {error}") from error.__cause__
        except UnidentifiedImageError:
            raise ImageError(f"{name} is no picture of a known format ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError:
            raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels: make it smaller first") from None
        except MemoryError:
            raise ImageError(f"{name} needs more memory than there is: make it smaller first") from None
        except FileNotFoundError:
            raise ImageError(f"{name} does not exist") from None
        except Exception as error:  # a decoder in trouble raises TypeError, SyntaxError, KeyError, ...
            if isinstance(error, OSError) and error.errno:
                raise ImageError(f"{name} cannot be read: {error.strerror}") from error
            raise ImageError(f"{name} cannot be decoded: {shown(error)}") from error


def known_formats() -> list[str]:
    """The formats that this Pillow was built with, and HEIC once its plugin was wanted."""
    Image.init()
    return [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]


def reads_heic() -> bool:
    """Whether the extra [heic] is installed."""
    try:
        _allow_heic()
    except ImageError:
        return False
    return True


def shown(name: object) -> str:
    """A name as a message may have it: nothing that a terminal obeys or cannot show, and no more than fits."""
    text = os.fspath(name) if isinstance(name, PathLike) else str(name)
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", _escaped, str(text))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]}...{text[-MAX_SHOWN // 2 :]}"


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


def _allow_heic() -> None:
    try:
        from pillow_heif import register_heif_opener  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImageError(f"is a picture in HEIC: to read it, {HEIC_HINT}") from error
    register_heif_opener()
