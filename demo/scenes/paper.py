"""The paper that scenes are drawn on."""

from random import Random

from smolvlm_edge.demo.scenes.palette import Colour, background
from smolvlm_edge.demo.scenes.scene import Sketch

ASPECTS = ((1, 1), (1, 1), (4, 3), (3, 4), (5, 4), (2, 1), (1, 2))
SHORTEST, LONGEST = 128, 480  # pixels of the longer side


def blank(random: Random, aspects: tuple[tuple[int, int], ...] = ASPECTS) -> Sketch:
    """An empty picture of some size, aspect ratio and background."""
    across, down = random.choice(aspects)
    longest = random.randint(SHORTEST, LONGEST)
    width, height = (longest, longest * down // across) if across >= down else (longest * across // down, longest)
    top = background(random)
    bottom = _darker(top) if random.random() < 0.2 else top
    return Sketch(width, height, (top, bottom), ())


def _darker(colour: Colour) -> Colour:
    red, green, blue = (round(level * 0.88) for level in colour)
    return red, green, blue
