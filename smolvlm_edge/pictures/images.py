"""A picture -> tiles.

The rules are those of transformers 5.23, `Idefics3ImageProcessorPil` (the reference backend; torchvision's
differs by up to a few grey levels), reproduced to the last bit: resize to the longest edge, upwards too;
resize to multiples of the tile; cut; add the whole picture squashed to one tile at the end. Pictures are
rounded to 8 bits between the resizes.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.errors import ImageError, IntegrityError
from smolvlm_edge.pictures.apart import is_slow, upright_rgb_apart
from smolvlm_edge.pictures.deadline import Check, until_stopped
from smolvlm_edge.pictures.pixels import shrink_on_load, upright_rgb, upright_size
from smolvlm_edge.pictures.sources import ImageSource, decoding, held, opened, readable, shown

logger = logging.getLogger(__name__)

Detail = Literal["low", "auto", "high"]
"""`low`: a picture becomes one tile. `auto`: it is not enlarged, but for its longer side to fill whole tiles. `high`:
the checkpoint's own rules."""
MAX_EDGE = 4096  # no resized picture is longer than this
MAX_TILES = 1 << 12  # no picture has more; a checkpoint whose rules ask for it is damaged
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


def open_image(source: ImageSource, check: Check | None = None) -> Image.Image:
    """Read a picture as RGB, upright (EXIF orientation applied), transparency laid over white.

    Of an animation or a file of several pages the first picture is taken, and a warning is logged.

    Args:
        source: The picture.
        check: Called while it is decoded; what it raises ends the waiting.

    Raises:
        ImageError: The picture is missing, damaged, too large, or no picture at all.
    """
    source = held(source)
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    return until_stopped(lambda: _decoded(source), check)


def check_image(source: ImageSource) -> None:
    """Refuse, by the head of a file, what `open_image` would refuse; for who is about to do something long before.

    Raises:
        ImageError: The picture is missing, or no picture at all.
    """
    if isinstance(source, str | PathLike | bytes):
        file = readable(source)
        with decoding(_name(source)), opened(file):
            pass


def grid_of(
    source: ImageSource, config: ImageConfig, *, detail: Detail = "high", longest_edge: int | None = None
) -> tuple[int, int]:
    """(rows, columns) of the tiles that a picture becomes, by the head of its file; (0, 0) if it stays uncut.

    Raises:
        ImageError: As `open_image`, as far as the head of a file tells.
    """
    known: Any = held(source)
    if isinstance(known, np.ndarray):
        height, width = _from_array(known).size[::-1]
    elif isinstance(known, Image.Image):
        width, height = upright_size(known)
    else:
        file = readable(known)
        with decoding(_name(known)), opened(file) as image:
            width, height = upright_size(image)
    return _grid(width, height, config, detail, longest_edge)[2:] if width and height else (0, 0)


def cut(image: Image.Image, config: ImageConfig, *, detail: Detail = "high", longest_edge: int | None = None) -> Tiles:
    """Resize an RGB picture and cut it into tiles.

    Args:
        image: An RGB picture.
        config: The checkpoint's rules.
        detail: How many tiles to spend on it. Uncut, the picture is squashed to one square.
        longest_edge: Pixels to bring the longer side to, instead of the checkpoint's.
    """
    tile, resample = config.tile_size, Image.Resampling(config.resample)
    first, second, rows, columns = _grid(*image.size, config, detail, longest_edge)
    image = image.resize(first, resample)
    if second is None:
        return Tiles((np.asarray(image.resize((tile, tile), resample)),), 0, 0, config)
    image = image.resize(second, resample)
    pixels = np.asarray(image)
    if not rows:
        return Tiles((pixels,), 0, 0, config)
    squares = [
        pixels[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        for row in range(rows)
        for column in range(columns)
    ]
    return Tiles((*squares, np.asarray(image.resize((tile, tile), resample))), rows, columns, config)


def _grid(
    width: int, height: int, config: ImageConfig, detail: Detail, longest_edge: int | None
) -> tuple[tuple[int, int], tuple[int, int] | None, int, int]:
    """The sizes that a picture is brought to one after the other, the second one in whole tiles, and their grid."""
    tile, longest_edge = config.tile_size, longest_edge or config.longest_edge
    if detail == "auto":
        longest_edge = min(longest_edge, math.ceil(max(width, height) / tile) * tile)
    first = longest_edge_size(width, height, longest_edge)
    if not 1 <= tile <= MAX_EDGE:
        raise IntegrityError(f"preprocessor_config.json: no tile has sides of {tile} pixels")
    if detail == "low" or not config.split:
        return first, None, 0, 0
    second = tile_multiple_size(*first, tile)
    columns, rows = second[0] // tile, second[1] // tile
    if rows * columns > MAX_TILES:
        raise IntegrityError(f"preprocessor_config.json: no picture becomes {rows * columns} tiles of {tile} pixels")
    return (first, second, 0, 0) if rows <= 1 and columns <= 1 else (first, second, rows, columns)


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


def _decoded(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        with decoding("the picture"):
            shrink_on_load(source)
            return upright_rgb(source)
    file = readable(source)
    with decoding(_name(source)), opened(file) as image:
        shrink_on_load(image)
        pages = getattr(image, "n_frames", 1) if image.format in PAGED_FORMATS else 1
        if pages > 1:
            logger.warning("%s holds %d pictures; only the first is used", _name(source), pages)
        return upright_rgb_apart(file) if is_slow(image, file) else upright_rgb(image, own=True)


def _name(source: Any) -> str:
    return shown(source) if isinstance(source, str | PathLike) else "the picture"


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
