"""What lies under every patch of a tile: the targets on which the vision encoder is trained first."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smolvlm_edge.demo.scenes.drawing import cap_height, outline, text_width
from smolvlm_edge.demo.scenes.palette import COLOURS
from smolvlm_edge.demo.scenes.scene import Bar, Disc, Line, Mark, Shape, Sketch, Text
from smolvlm_edge.demo.scenes.shapes import NAMES

Labels = npt.NDArray[np.uint8]

KINDS = ("nothing", *NAMES, "text", "bar", "line", "curve", "face")
DRAWN = {"kind": len(KINDS), "colour": len(COLOURS) + 1, "character": 96, "index": 8}
"""Classes of what is drawn. Class 0 is nothing; `index` is a character's place within its string, 7 at most."""
MOST_PATCHES = 32
TARGETS = {**DRAWN, "row": MOST_PATCHES + 1, "column": MOST_PATCHES + 1}
"""And of where in its tile a patch lies, from 1: the decoder answers "where", and sees no positions but in order."""
UNKNOWN = 255
"""Too small to be read, or counted from outside the tile."""
LEAST_CAP = 5.0
"""Pixels of capital height below which a letter is no fair question."""
COLOUR_IDS = {"": 0, **{name: i for i, name in enumerate(COLOURS, start=1)}}


def label(sketch: Sketch, rows: int, columns: int, tile: int, patch: int) -> Labels:
    """Labels uint8 [tiles, targets, patches, patches] of a cut picture, the whole picture last."""
    parts = []
    if rows:
        whole = _maps(sketch, columns * tile, rows * tile, patch)
        side = tile // patch
        for row in range(rows):
            for column in range(columns):
                part = whole[:, row * side : (row + 1) * side, column * side : (column + 1) * side].copy()
                parts.append(_forget_beginnings(part))
    drawn = np.stack([*parts, _maps(sketch, tile, tile, patch)])
    places = np.indices(drawn.shape[2:], np.uint8) + np.uint8(1)
    return np.concatenate([drawn, np.broadcast_to(places, (len(drawn), *places.shape))], axis=1)


def _maps(sketch: Sketch, width: int, height: int, patch: int) -> Labels:
    """Labels at the patches' centres of the picture squashed to some size."""
    images = {target: Image.new("L", (width, height)) for target in DRAWN}
    canvases = {target: ImageDraw.Draw(image) for target, image in images.items()}
    across, down = width / sketch.units[0], height / sketch.units[1]
    for mark in sketch.marks:
        _paint(canvases, mark, across, down)
    half = patch // 2
    return np.stack([np.asarray(image)[half::patch, half::patch] for image in images.values()])


def _paint(canvases: dict[str, ImageDraw.ImageDraw], mark: Mark, across: float, down: float) -> None:
    def everywhere(draw: Callable[[ImageDraw.ImageDraw, int], object], kind: str, colour: int) -> None:
        values = {"kind": KINDS.index(kind), "colour": colour, "character": 0, "index": 0}
        for target, canvas in canvases.items():
            draw(canvas, values[target])

    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        return [left * across, top * down, right * across, bottom * down]

    match mark:
        case Shape(name="circle", x=x, y=y, radius=r):
            corners = box(x - r, y - r, x + r, y + r)
            everywhere(lambda canvas, value: canvas.ellipse(corners, fill=value), "circle", COLOUR_IDS[mark.colour])
        case Shape():
            points = [(x * across, y * down) for x, y in outline(mark)]
            everywhere(lambda canvas, value: canvas.polygon(points, fill=value), mark.name, COLOUR_IDS[mark.colour])
        case Bar():
            corners = box(mark.left, mark.top, mark.right, mark.bottom)
            everywhere(lambda canvas, value: canvas.rectangle(corners, fill=value), "bar", COLOUR_IDS[mark.colour])
        case Line():
            points = [(x * across, y * down) for x, y in mark.points]
            kind = "curve" if mark.curve else "line"
            everywhere(lambda canvas, value: canvas.line(points, fill=value, width=4), kind, COLOUR_IDS[mark.colour])
        case Disc(x=x, y=y, radius=r):
            corners = box(x - r, y - r, x + r, y + r)
            everywhere(lambda canvas, value: canvas.ellipse(corners, fill=value), "face", 0)
        case Text():
            _paint_text(canvases, mark, across, down)


def _paint_text(canvases: dict[str, ImageDraw.ImageDraw], text: Text, across: float, down: float) -> None:
    cap = cap_height(text.font) * text.size
    readable = cap * min(across, down) >= LEAST_CAP
    for i, character in enumerate(text.string):
        left, right = (text.x + text_width(text.string[:end], text.font, text.size) for end in (i, i + 1))
        corners = [left * across, (text.y - cap) * down, right * across, text.y * down]
        values = {
            "kind": KINDS.index("text"),
            "colour": COLOUR_IDS[text.colour],
            "character": ord(character) - 31 if readable else UNKNOWN,
            "index": i + 1 if readable else UNKNOWN,
        }
        for target, canvas in canvases.items():
            canvas.rectangle(corners, fill=values[target])


def _forget_beginnings(part: Labels) -> Labels:
    """Characters at a tile's left edge whose string begins in the tile before cannot be counted."""
    for row in part[list(DRAWN).index("index")]:
        for x, value in enumerate(row):
            if value <= 1:
                break
            row[x] = UNKNOWN
    return part
