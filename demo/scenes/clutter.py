"""What the model should not make anything of: empty paper, and a jumble without a name."""

from random import Random

from smolvlm_edge.demo.scenes import wording
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import Bar, Disc, Line, Mark, Question, Scene
from smolvlm_edge.demo.scenes.wording import ask


def clutter(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001 - every maker is called alike
    """Rectangles, discs and lines of any colour over each other; now and then nothing at all."""
    sketch = blank(random)
    width, height = sketch.units
    count = 0 if random.random() < 0.25 else random.randint(15, 50)
    says = wording.UNCLEAR if count else "The picture is empty."
    marks = tuple(_anything(random, width, height) for _ in range(count))
    return Scene((sketch.with_marks(marks),), (Question("unclear", ask(random, wording.DESCRIBE), says),))


def talk(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001
    """No picture, only words."""
    return Scene((), (Question("modest", random.choice(wording.OUT_OF_REACH), wording.MODEST),))


def _anything(random: Random, width: float, height: float) -> Mark:
    x, y, size = random.uniform(0, width), random.uniform(0, height), random.uniform(4, 60)
    colour = (random.randrange(256), random.randrange(256), random.randrange(256))
    match random.randrange(3):
        case 0:
            return Bar("", colour, *(round(v, 1) for v in (x, y, x + size, y + size * random.uniform(0.3, 2))))
        case 1:
            return Disc(colour, colour, round(x, 1), round(y, 1), round(size / 2, 1))
        case _:
            points = tuple((round(random.uniform(0, width), 1), round(random.uniform(0, height), 1)) for _ in range(3))
            return Line("", colour, points, round(random.uniform(1, 8), 1))
