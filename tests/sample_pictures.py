"""Pictures of every shape, mode and container, and the settings they are cut with; all made from a formula."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

Picture = Image.Image | bytes
"""A picture in memory, or the bytes of a file."""

ORIENTATION = 0x0112  # the EXIF tag


def pixels(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Gradients, hard edges and noise, uint8 [height, width, channels]: a wrong resize shows at once.

    The noise is an integer hash instead of a random generator's, whose stream numpy may change.
    """
    axes = [np.arange(size, dtype=np.uint32) for size in (height, width, channels)]
    y, x, channel = np.meshgrid(*axes, indexing="ij", sparse=True)
    bits = x * np.uint32(374_761_393) + y * np.uint32(668_265_263) + (channel + 3 * seed) * np.uint32(2_246_822_519)
    bits = (bits ^ (bits >> 13)) * np.uint32(1_274_126_177)
    noise = (bits >> 24) * 3 >> 3
    rise = np.array([120, 0, 60, 0], np.uint32)[:channels], np.array([0, 120, 60, 120], np.uint32)[:channels]
    gradient = x * rise[0] // max(width - 1, 1) + y * rise[1] // max(height - 1, 1)
    edges = 40 * (x // 7 + y // 11 & 1)
    return (gradient + noise + edges).astype(np.uint8)


def rgb(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(width, height, seed=seed))


def grey(width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels(width, height, 1)[..., 0])


def encoded(image: Image.Image, container: str, **options: Any) -> bytes:
    file = BytesIO()
    image.copy().save(file, container, **options)  # saving may leave settings of a format on the picture
    return file.getvalue()


def rotated(orientation: int, container: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(rgb(150, 90), container, exif=exif, **options)


def rgba() -> Image.Image:
    """Opacity grows from left to right; the colours below full transparency must not shine through."""
    array = pixels(200, 140, 4)
    array[..., 3] = np.linspace(0, 255, 200).astype(np.uint8)
    return Image.fromarray(array)


def grey_alpha() -> Image.Image:
    return Image.merge("LA", (grey(160, 120), grey(160, 120).transpose(Image.Transpose.ROTATE_180)))


def palette() -> Image.Image:
    """Four-by-four-by-four colours; no adaptive palette, whose choice Pillow may change."""
    levels = pixels(180, 130) // 64
    image = Image.fromarray((levels[..., 0] * 16 + levels[..., 1] * 4 + levels[..., 2]).astype(np.uint8))
    image.putpalette([85 * level for r in range(4) for g in range(4) for b in range(4) for level in (r, g, b)])
    return image


def cmyk(width: int, height: int) -> Image.Image:
    return Image.frombytes("CMYK", (width, height), pixels(width, height, 4).tobytes())


def animated_png() -> bytes:
    frames = [rgb(120, 90, seed) for seed in range(3)]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)


def animated_gif() -> bytes:
    frames = [palette(), palette().rotate(90), palette().rotate(180)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


SHAPES: dict[str, Callable[[], Picture]] = {
    "portrait": lambda: rgb(427, 640),
    "landscape": lambda: rgb(640, 427),
    "square": lambda: rgb(300, 300),
    "one_pixel": lambda: rgb(1, 1),
    "column_1x4000": lambda: rgb(1, 4000),
    "row_4000x1": lambda: rgb(4000, 1),
    "small_200x150": lambda: rgb(200, 150),
    "tile_512x512": lambda: rgb(512, 512),
    "tile_513x512": lambda: rgb(513, 512),
    "page_2480x3508": lambda: rgb(2480, 3508),
    "banner_5000x10": lambda: rgb(5000, 10),
    "odd_333x1001": lambda: rgb(333, 1001),
}

LOSSLESS: dict[str, Callable[[], Picture]] = {
    "rgba": rgba,
    "rgba_png": lambda: encoded(rgba(), "PNG"),
    "grey_alpha": grey_alpha,
    "palette": palette,
    "palette_alpha": lambda: palette().convert("PA"),
    "palette_transparent_bytes": lambda: encoded(palette(), "PNG", transparency=bytes(range(0, 256, 4))),
    "palette_transparent_index": lambda: encoded(palette(), "PNG", transparency=21),
    "palette_transparent_index_0": lambda: encoded(palette(), "PNG", transparency=0),
    "gif_transparent": lambda: encoded(palette(), "GIF", transparency=42),
    "rgb_transparent_colour": lambda: encoded(palette().convert("RGB"), "PNG", transparency=(85, 170, 85)),
    "grey_transparent_level": lambda: encoded(grey(120, 90), "PNG", transparency=100),
    "grey": lambda: grey(210, 140),
    "one_bit": lambda: grey(190, 130).point(lambda level: 255 * (level > 110), "1"),
    "cmyk": lambda: cmyk(140, 100),
    "bmp": lambda: encoded(rgb(130, 170), "BMP"),
    "tiff": lambda: encoded(rgb(160, 110), "TIFF", compression="tiff_lzw"),
    "webp_lossless": lambda: encoded(rgb(140, 120), "WEBP", lossless=True),
    "ppm": lambda: encoded(rgb(90, 100), "PPM"),
    "tga": lambda: encoded(rgba(), "TGA"),
    "ico": lambda: encoded(rgba().resize((64, 64)), "ICO", sizes=[(16, 16), (64, 64)]),
    "animated_gif": animated_gif,
    "animated_png": animated_png,
    "two_page_tiff": lambda: encoded(rgb(120, 90), "TIFF", save_all=True, append_images=[rgb(90, 120, seed=1)]),
    "exif_6_tiff": lambda: rotated(6, "TIFF"),
    **{f"exif_{orientation}_png": lambda o=orientation: rotated(o, "PNG") for orientation in range(1, 9)},
}

LOSSY: dict[str, Callable[[], Picture]] = {
    "jpeg": lambda: encoded(rgb(320, 240), "JPEG", quality=85),
    "jpeg_progressive": lambda: encoded(rgb(240, 320), "JPEG", progressive=True, quality=75),
    "jpeg_grey": lambda: encoded(grey(200, 160), "JPEG"),
    "jpeg_cmyk": lambda: encoded(cmyk(170, 120), "JPEG", quality=90),
    "exif_3_jpeg": lambda: rotated(3, "JPEG"),
    "exif_5_jpeg": lambda: rotated(5, "JPEG"),
    "exif_6_jpeg": lambda: rotated(6, "JPEG"),
    "exif_8_jpeg": lambda: rotated(8, "JPEG"),
    "exif_8_webp": lambda: rotated(8, "WEBP", quality=80),
    "webp": lambda: encoded(rgba(), "WEBP", quality=80),
    "mpo": lambda: encoded(rgb(180, 120), "MPO", save_all=True, append_images=[rgb(90, 60, seed=1)]),
}
"""Another build of the codecs may encode and decode these a little differently."""

PICTURES = SHAPES | LOSSLESS | LOSSY

SETTINGS: dict[str, dict[str, Any]] = {  # fields of ImageConfig that differ from the released checkpoint's
    "released": {},
    "unsplit": {"split": False},
    "edge_512": {"longest_edge": 512},
    "edge_1024": {"longest_edge": 1024},
    "edge_1536": {"longest_edge": 1536},
    "tile_384": {"longest_edge": 1536, "tile_size": 384},
    "tile_364": {"longest_edge": 1456, "tile_size": 364},
    "uneven_levels": {
        "longest_edge": 700,
        "resample": 3,
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    },
}

COSTLY = ("released", "edge_1536", "tile_384", "tile_364")
"""Up to 17 tiles each: with these only the shapes matter."""


def golden_cases() -> Iterator[tuple[str, str]]:
    """(picture, setting): every shape with every setting, modes and containers with the small ones."""
    for picture in PICTURES:
        for setting in SETTINGS:
            if picture in SHAPES or setting not in COSTLY:
                yield picture, setting


def resize_fingerprint() -> str:
    """Tells apart versions of Pillow that resize differently, as 12 and 13 do with some tall pictures."""
    return sha256(rgb(333, 1001).resize((512, 512), Image.Resampling.LANCZOS).tobytes()).hexdigest()
