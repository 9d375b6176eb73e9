"""A sketch -> a picture."""

import math
from functools import cache
from importlib.resources import files
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont, ImageOps

from smolvlm_edge.demo.scenes.scene import EDGE, Bar, Disc, Line, Mark, Shape, Sketch, Text

FONTS = ("Aileron", "Roboto-Regular", "Roboto-Bold", "Caladea-Regular", "Caladea-Bold", "Manrope-Medium")
"""Aileron comes with Pillow; the others lie in fonts/, cut down to the characters that scenes use."""
OVERSAMPLING = 2  # shapes have no soft edges otherwise

STAR, HEART, CROSS = "star", "heart", "cross"
Point = tuple[float, float]


def draw(sketch: Sketch) -> Image.Image:
    """The picture of a sketch: RGB, sketch.width x sketch.height."""
    size = (sketch.width * OVERSAMPLING, sketch.height * OVERSAMPLING)
    top, bottom = sketch.background
    if top == bottom:
        image = Image.new("RGB", size, top)
    else:
        image = ImageOps.colorize(Image.linear_gradient("L"), top, bottom).resize(size)
    canvas = ImageDraw.Draw(image)
    scale = max(size) / EDGE
    for mark in sketch.marks:
        _draw(canvas, mark, scale)
    return image.reduce(OVERSAMPLING)


def outline(shape: Shape) -> list[Point]:
    """The corners of a shape in units; a circle has none."""
    x, y, r = shape.x, shape.y, shape.radius
    return [(x + r * a, y + r * b) for a, b in _outlines()[shape.name]]


@cache
def font(index: int, pixels: int) -> ImageFont.FreeTypeFont:
    """A font at a size, in pixels per em."""
    if index == 0:
        built_in = ImageFont.load_default(pixels)
        assert isinstance(built_in, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        return built_in
    return ImageFont.truetype(BytesIO(_font_file(FONTS[index])), pixels)


def text_width(string: str, index: int, size: float) -> float:
    """Units that a line of text takes."""
    return font(index, 100).getlength(string) * size / 100


def cap_height(index: int) -> float:
    """Height of a capital letter, in ems."""
    return -font(index, 100).getbbox("H", anchor="ls")[1] / 100


def _draw(canvas: ImageDraw.ImageDraw, mark: Mark, scale: float) -> None:
    def scaled(*values: float) -> list[float]:
        return [value * scale for value in values]

    match mark:
        case Shape(name="circle", x=x, y=y, radius=r):
            canvas.ellipse(scaled(x - r, y - r, x + r, y + r), fill=mark.rgb)
        case Shape():
            canvas.polygon([(x * scale, y * scale) for x, y in outline(mark)], fill=mark.rgb)
        case Text(string=string, x=x, y=y):
            pixels = max(1, round(mark.size * scale))
            canvas.text((x * scale, y * scale), string, fill=mark.rgb, font=font(mark.font, pixels), anchor="ls")
        case Bar():
            canvas.rectangle(scaled(mark.left, mark.top, mark.right, mark.bottom), fill=mark.rgb)
        case Line():
            points = [(x * scale, y * scale) for x, y in mark.points]
            canvas.line(points, fill=mark.rgb, width=max(1, round(mark.width * scale)), joint="curve")
        case Disc(x=x, y=y, radius=r):
            box = scaled(x - r, y - r, x + r, y + r)
            canvas.ellipse(box, fill=mark.rgb, outline=mark.rim, width=max(1, round(scale * r / 16)))


@cache
def _font_file(name: str) -> bytes:
    return (files("smolvlm_edge.demo.scenes") / "fonts" / f"{name}.ttf").read_bytes()


@cache
def _outlines() -> dict[str, list[Point]]:
    """Corners of every shape within the square from -1 to 1, y downwards."""
    third = 0.36
    return {
        "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
        "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
        CROSS: [
            (-third, -1),
            (third, -1),
            (third, -third),
            (1, -third),
            (1, third),
            (third, third),
            (third, 1),
            (-third, 1),
            (-third, third),
            (-1, third),
            (-1, -third),
            (-third, -third),
        ],
        STAR: [
            (radius * math.sin(math.pi * i / 5), -radius * math.cos(math.pi * i / 5))
            for i in range(10)
            for radius in ((1.0, 0.42)[i % 2],)
        ],
        HEART: [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
            for t in (2 * math.pi * i / 48 for i in range(48))
        ],
    }
