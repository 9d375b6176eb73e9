"""An open picture -> upright RGB of 8 bits, in little more memory than that takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from smolvlm_edge.errors import ImageError

MAX_PIXELS = 89_478_485
"""Pillow's own bound: 256 MB as RGB."""
MAX_SIDE = 1 << 18
"""A picture of one pixel by millions is no picture, and to resize it takes gigabytes."""
MAX_JPEG_PIXELS = 256_000_000
"""A JPEG of more than `MAX_PIXELS` is decoded at a half, a quarter or an eighth of its size, up to so many: phones
take photographs of 200 megapixels. Progressive files, which have to be held as a whole, are not."""
MAX_JPEG2000_PIXELS = 8_000_000
"""A JPEG 2000 of more is decoded at a half, a quarter, ... of its size: the decoder takes 20 bytes a pixel."""
DEAREST = {"WEBP": 14, "AVIF": 14, "progressive CMYK": 12}
"""Bytes a pixel, where decoding takes more than 9, three times what RGB takes: no picture takes more than the largest
one does at 9."""
LET_GO = {"WEBP", "AVIF"}
"""Formats whose decoders hold a frame more than once, and are not needed after it."""
BAND_PIXELS = 1 << 20
WITHOUT_ALPHA = {"BMP", "DIB", "ICO", "TGA"}
"""Formats whose fourth channel, if it is 0 everywhere, was never meant as transparency."""
WHITE_IS_ZERO, BITS, PHOTOMETRIC, MAX_SAMPLE = 0, 258, 262, 281  # of TIFF
TRANSPOSED = (5, 6, 7, 8)
ORIENTATION = 0x0112


def shrink_on_load(image: Image.Image) -> None:
    """Have a picture that is too large to be decoded whole decoded at a part of its size, where its format can.

    Raises:
        ImageError: It has no pixels, or too many.
    """
    pixels, most = image.width * image.height, MAX_PIXELS
    if not pixels:
        raise ImageError(f"has no pixels ({image.width} x {image.height})")
    kind = image.format if image.format in ("JPEG", "JPEG2000", *DEAREST) else None
    if kind == "JPEG" and not image.info.get("progressive"):
        most = max(most, MAX_JPEG_PIXELS)
    elif dear := DEAREST.get("progressive CMYK" if kind == "JPEG" and image.mode == "CMYK" else str(kind)):
        most = 9 * most // dear
    if pixels > most:
        raise ImageError(f"has more than {most:,} pixels: make it smaller first")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"has more than {MAX_SIDE:,} pixels on a side: crop it or make it smaller first")
    if kind == "JPEG" and pixels > MAX_PIXELS:
        factor = 2 if pixels <= 4 * MAX_PIXELS else 4
        image.draft(None, (image.width // factor, image.height // factor))
    elif kind == "JPEG2000" and pixels > MAX_JPEG2000_PIXELS:
        halvings = next(n for n in range(1, 16) if pixels >> (2 * n) <= MAX_JPEG2000_PIXELS)
        image.reduce = halvings  # type: ignore[method-assign,assignment]  # a property of this format


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) once it is turned as its EXIF data say."""
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in TRANSPOSED else (width, height)


def upright_rgb(image: Image.Image, *, own: bool = False) -> Image.Image:
    """As RGB, EXIF orientation applied, transparency laid over white, greys of 16 bits by their high byte.

    Args:
        image: Any Pillow image.
        own: It may be changed. Another one is left as it is, and given back if there is nothing to do.
    """
    kind, level = image.format, _grey_rule(image)
    if own and kind in LET_GO:
        image._decoder = _LastFrame(image._decoder)  # type: ignore[attr-defined]  # of Pillow's two plug-ins
    image.load()
    if image.width * image.height > MAX_PIXELS or not all(image.size):
        shrink_on_load(image)  # says what is wrong
    if own:
        ImageOps.exif_transpose(image, in_place=True)
    elif image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if level:
        return _by_bands(image, lambda band: _grey(level(np.asarray(band)), band))
    if kind in WITHOUT_ALPHA and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        return _by_bands(image, _over_white)
    return image if image.mode == "RGB" else image.convert("RGB")


class _LastFrame:
    """A decoder that goes with the frame that it gives.

    libwebp's holds the frame twice, libavif's its planes, and Pillow would keep them while it copies the frame.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def get_next(self) -> Any:
        """The frame, of WebP; None if it is damaged, and then the decoder is asked more."""
        if frame := self._decoder.get_next():
            self._decoder = None
        return frame

    def get_frame(self, number: int) -> Any:
        """The frame, of AVIF."""
        frame, self._decoder = self._decoder.get_frame(number), None
        return frame


def _by_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """A new RGB picture, made from some rows at a time."""
    result = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        result.paste(convert(image.crop(box)), box)
    return result


def _over_white(band: Image.Image) -> Image.Image:
    band = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", band.size, (255, 255, 255, 255)), band).convert("RGB")


def _grey(levels: npt.NDArray[np.uint8], band: Image.Image) -> Image.Image:
    """Levels [H, W] as RGB; a grey that the file declares transparent becomes white."""
    if isinstance(transparent := band.info.get("transparency"), int):
        levels = np.where(np.asarray(band) == transparent, np.uint8(255), levels)
    return Image.fromarray(levels).convert("RGB")


def _grey_rule(image: Image.Image) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]] | None:
    """How greys of more than 8 bits become levels from 0 to 255; None for pictures of 8 bits.

    Integers by their high byte: of 16 bits, or of the range that the file states. Floats from 0 to 1 are multiplied by
    255, others up to 255 are levels already. transformers cuts all of them off at 255 instead, which leaves white.

    Raises:
        ImageError: Values outside of these ranges, which nothing says how to show.
    """
    if image.mode == "F":
        return _float_rule(image)
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return None
    tags = getattr(image, "tag_v2", {})
    most, inverted = _stated_maximum(tags), tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if image.mode == "I":
        lowest, highest = image.getextrema()
        if lowest < 0 or highest > most:  # type: ignore[operator]  # two numbers, for one band
            raise ImageError(
                f"has grey values from {lowest} to {highest}, and nothing says how to show them: "
                "save it with 8 or 16 bits, without a sign, first"
            )

    def level(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        levels = (np.minimum(values, most).astype(np.uint32) * 256 // (most + 1)).astype(np.uint8)
        return 255 - levels if inverted else levels

    return level


def _stated_maximum(tags: Any) -> int:
    """The largest value of a grey picture; Pillow has scaled PGM and JPEG 2000 files to 16 bits by theirs already."""
    stated, bits = tags.get(MAX_SAMPLE), tags.get(BITS, (16,))
    stated = stated[0] if isinstance(stated, tuple) and stated else stated
    if isinstance(stated, int) and 255 < stated < 1 << 16:
        return stated
    if bits == (32,):
        raise ImageError("has greys of 32 bits: save it with 8 or 16 first")
    return 4095 if bits == (12,) else 65535


def _float_rule(image: Image.Image) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]:
    values = np.asarray(image)
    lowest, highest = float(values.min()), float(values.max())  # not a number, if any of them is none
    if not (lowest >= 0 and highest <= 255):
        raise ImageError(
            f"has floating-point values from {lowest:g} to {highest:g}, and nothing says how to show "
            "them: scale them to 0..1 first"
        )
    if highest <= 1:
        return lambda band: np.rint(band * np.float32(255)).astype(np.uint8)
    return lambda band: band.astype(np.uint8)
