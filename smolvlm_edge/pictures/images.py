"""A picture -> tiles.

The rules are those of transformers 5.23, `Idefics3ImageProcessorPil` (the reference backend; torchvision's
differs by up to a few grey levels), reproduced to the last bit: resize to the longest edge, upwards too;
resize to multiples of the tile; cut; add the whole picture squashed to one tile at the end. Pictures are
rounded to 8 bits between the resizes.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from io import BytesIO
from os import PathLike
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.errors import ImageError

logger = logging.getLogger(__name__)

ImageSource = str | PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, the bytes of a file, a Pillow image, or a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats that are decoded by a library in this process; EPS, for one, would start another program. Phones'
MPO counts as JPEG."""
MAX_PIXELS = 89_478_485  # Pillow's own bound: 256 MB as RGB
MAX_FILE_BYTES = 256 << 20
Detail = Literal["low", "auto", "high"]
"""`low`: a picture becomes one tile. `auto`: it is not enlarged, but for its longer side to fill whole tiles. `high`:
the checkpoint's own rules."""
MAX_EDGE = 4096  # no resized picture is longer than this
_warning_filters = Lock()  # they belong to the whole process
PAGED_FORMATS = {"GIF", "PNG", "TIFF", "WEBP", "AVIF"}  # the second picture of an MPO photo is only a preview


@dataclass(frozen=True)
class Tiles:
    """A picture cut into squares, row by row, the whole picture last; a single square if rows is 0."""

    squares: tuple[npt.NDArray[np.uint8], ...]
    """Each [tile_size, tile_size, 3]."""
    rows: int
    columns: int
    config: ImageConfig

    def __len__(self) -> int:
        return len(self.squares)

    def pixel_values(self) -> Iterator[npt.NDArray[np.float32]]:
        """The tiles one by one as float32 [1, 3, tile_size, tile_size], rescaled and normalised."""
        for index in range(len(self)):
            yield self.pixel_values_of(index)

    def pixel_values_of(self, index: int) -> npt.NDArray[np.float32]:
        """One tile as float32 [1, 3, tile_size, tile_size], rescaled and normalised."""
        table, square = _normalised_levels(self.config), self.squares[index]
        return np.stack([table[channel][square[..., channel]] for channel in range(3)])[None]

    @cached_property
    def digests(self) -> tuple[int, ...]:
        """What each tile shows: the same number, below 0, for the same pixel values."""
        rules = repr(self.config).encode()
        hashes = (blake2b(rules + square.tobytes(), digest_size=8).digest() for square in self.squares)
        return tuple((int.from_bytes(digest) - (1 << 64)) >> 1 for digest in hashes)


def open_image(source: ImageSource) -> Image.Image:
    """Read a picture as RGB, upright (EXIF orientation applied), transparency laid over white.

    Of an animation or a file of several pages the first picture is taken, and a warning is logged.

    Raises:
        ImageError: The picture is missing, damaged, too large, or no picture at all.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    name = source if isinstance(source, str | PathLike) else "the picture"
    file = source if isinstance(source, Image.Image) else readable(source)
    with decoding(name):
        if isinstance(file, Image.Image):
            return upright_rgb(file)
        with Image.open(file, formats=known_formats()) as image:
            frames = getattr(image, "n_frames", 1) if image.format in PAGED_FORMATS else 1
            if frames > 1:
                logger.warning("%s holds %d pictures; only the first is used", name, frames)
            return upright_rgb(image)


def check_image(source: ImageSource) -> None:
    """Refuse, by the head of a file, what `open_image` would refuse; for who is about to do something long before.

    Raises:
        ImageError: The picture is missing, or no picture at all.
    """
    if not isinstance(source, str | PathLike | bytes):
        return
    file = readable(source)
    if isinstance(file, BytesIO) or file.is_file():  # a pipe gives its picture once
        with decoding(source if isinstance(source, str | PathLike) else "the picture"):
            Image.open(file, formats=known_formats()).close()


def cut(image: Image.Image, config: ImageConfig, *, detail: Detail = "high", longest_edge: int | None = None) -> Tiles:
    """Resize an RGB picture and cut it into tiles.

    Args:
        image: An RGB picture.
        config: The checkpoint's rules.
        detail: How many tiles to spend on it. Uncut, the picture is squashed to one square.
        longest_edge: Pixels to bring the longer side to, instead of the checkpoint's.
    """
    tile, longest_edge = config.tile_size, longest_edge or config.longest_edge
    if detail == "auto":
        longest_edge = min(longest_edge, math.ceil(max(image.size) / tile) * tile)
    resample = Image.Resampling(config.resample)
    image = image.resize(longest_edge_size(*image.size, longest_edge), resample)
    if detail == "low" or not config.split:
        return Tiles((np.asarray(image.resize((tile, tile), resample)),), 0, 0, config)
    image = image.resize(tile_multiple_size(*image.size, tile), resample)
    columns, rows = image.width // tile, image.height // tile
    if rows <= 1 and columns <= 1:
        return Tiles((np.asarray(image),), 0, 0, config)
    pixels = np.asarray(image)
    squares = [
        pixels[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        for row in range(rows)
        for column in range(columns)
    ]
    return Tiles((*squares, np.asarray(image.resize((tile, tile), resample))), rows, columns, config)


def longest_edge_size(width: int, height: int, longest_edge: int) -> tuple[int, int]:
    """(width, height) with the longer side at `longest_edge`, the other in proportion and even, both at most 4096."""
    ratio = width / height
    if width >= height:
        width, height = longest_edge, int(longest_edge / ratio)
        height += height % 2
    else:
        width, height = int(longest_edge * ratio), longest_edge
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    ratio = width / height
    if width >= height and width > MAX_EDGE:
        width, height = MAX_EDGE, int(MAX_EDGE / ratio)
    elif height > width and height > MAX_EDGE:
        width, height = int(MAX_EDGE * ratio), MAX_EDGE
    return max(width, 1), max(height, 1)


def tile_multiple_size(width: int, height: int, tile: int) -> tuple[int, int]:
    """(width, height) rounded up to multiples of the tile, the longer side first; the ratio is not kept exactly."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * ratio) / tile) * tile
    return width, height


def readable(source: str | PathLike[str] | bytes) -> BytesIO | Path:
    """A path or the bytes of a file as something to open.

    Raises:
        ImageError: It is missing, empty, a folder or out of reach.
    """
    if isinstance(source, bytes):
        if not source:
            raise ImageError("the picture is empty (0 bytes)")
        return BytesIO(source)
    path = Path(source)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)[:80]} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, not a picture")
    if S_ISREG(status.st_mode) and status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes)")
    return path


@contextmanager
def decoding(name: object) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into an ImageError.

    Pillow's warnings are kept quiet: damaged metadata costs nobody the picture. The one of a picture above
    its bound becomes an error.
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except UnidentifiedImageError:
            raise ImageError(f"{name} is no picture of a known format ({', '.join(FORMATS)})") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels: make it smaller first") from None
        except Exception as error:  # a decoder in trouble raises TypeError, SyntaxError, KeyError, ...
            raise ImageError(f"{name} cannot be decoded: {error}") from error


def known_formats() -> list[str]:
    """The formats that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def upright_rgb(image: Image.Image) -> Image.Image:
    """A copy as RGB, EXIF orientation applied, transparency laid over white."""
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image.convert("RGB")


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is ambiguous: pass uint8 values from 0 to 255")
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise ImageError(
            f"an array of shape {array.shape} is no picture: pass [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _normalised_levels(config: ImageConfig) -> npt.NDArray[np.float32]:
    """What each of the 256 levels becomes, per channel: float32 [3, 256].

    Rescaled in float64, then rounded to float32 and normalised there, as transformers does.
    """
    levels = (np.arange(256, dtype=np.float64) * config.rescale_factor).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None] for values in (config.image_mean, config.image_std))
    normalised: npt.NDArray[np.float32] = (levels - mean) / std
    return normalised
