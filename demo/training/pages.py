"""Pages full of text, on which the vision encoder learns its letters; nothing is asked about them."""

from random import Random

from smolvlm_edge.demo.scenes.drawing import FONTS, cap_height, text_width
from smolvlm_edge.demo.scenes.palette import shade, visible_on
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import Scene, Text
from smolvlm_edge.demo.scenes.texts import any_string

CAPS = (7.5, 42.0)  # units of capital height
LINE, GAP = 1.35, 0.5  # ems from one line to the next, and between two strings


def page(random: Random, *, held_out: bool) -> Scene:
    """Lines of words, codes and numbers from top to bottom, each line in a font and size of its own."""
    sketch = blank(random)
    width, height = sketch.units
    colours = visible_on(sketch.background[0])
    marks = []
    y = random.uniform(0, 12)
    while True:
        index = random.randrange(len(FONTS))
        cap = CAPS[0] * (CAPS[1] / CAPS[0]) ** (random.random() ** 1.3)
        size = cap / cap_height(index)
        y += LINE * size * random.uniform(0.8, 1.1)
        if y > height - 1:
            break
        x = random.uniform(0, 16)
        while True:
            string, colour = any_string(random, held_out=held_out), random.choice(colours)
            right = x + text_width(string, index, size)
            if right > width:
                break
            marks.append(Text(string, colour, shade(random, colour), round(x, 1), round(y, 1), index, round(size, 2)))
            x = right + random.uniform(GAP, 3 * GAP) * size
    return Scene((sketch.with_marks(tuple(marks)),), ())
