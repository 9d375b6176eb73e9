"""Scenes of coloured shapes, some with a text among them."""

from collections import Counter
from random import Random

from smolvlm_edge.demo.scenes import texts, wording
from smolvlm_edge.demo.scenes.palette import COLOURS, shade, visible_on
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import Mark, Question, Scene, Shape, Sketch, Text
from smolvlm_edge.demo.scenes.wording import article, ask, listing, plural

NAMES = ("circle", "square", "triangle", "star", "diamond", "heart", "cross")
SIZES = {"small": (0.32, 0.46), "large": (0.72, 0.88)}
"""Radius as a share of half a cell's shorter side."""
JITTER = 0.07  # share of a cell that a centre may be off: nothing stands between two places
Cell = tuple[int, int]
Placed = tuple[Shape, Cell]


def describing(random: Random, *, held_out: bool) -> Scene:
    """One to three shapes; every fourth time with a text in a row of its own."""
    sketch = blank(random)
    count = random.randint(1, 3)
    rows = [0, 1, 2]
    written = None
    if random.random() < 0.25:
        written = random.choice(rows)
        rows.remove(written)
    placed = place_shapes(random, sketch, count, rows, alike=0.2)
    facts: list[tuple[Text, int]] = []
    if written is not None:
        colour = random.choice(visible_on(sketch.background[0]))
        string = texts.any_string(random, held_out=held_out)
        facts = [(texts.place_text(random, sketch, string, colour, written, texts.LARGE), written)]
    marks: tuple[Mark, ...] = (*(shape for shape, _ in placed), *(text for text, _ in facts))
    return Scene(
        (sketch.with_marks(marks),),
        (
            *questions(random, placed),
            *(texts.questions(random, facts) if facts else [_no_text(random)]),
            Question("describe", ask(random, wording.DESCRIBE), describe(placed, facts)),
        ),
    )


def counting(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001 - every maker is called alike
    """Up to six shapes, many of a kind."""
    sketch = blank(random)
    placed = place_shapes(random, sketch, random.randint(1, 6), [0, 1, 2], alike=0.6)
    described = Question("describe many", ask(random, wording.DESCRIBE), describe(placed, []))
    marks = tuple(shape for shape, _ in placed)
    return Scene((sketch.with_marks(marks),), (*questions(random, placed), described))


def place_shapes(random: Random, sketch: Sketch, count: int, rows: list[int], alike: float) -> list[Placed]:
    """Shapes in cells of a 3 x 3 grid, in reading order; each like an earlier one with probability `alike`."""
    cells = sorted(random.sample([(row, column) for row in rows for column in range(3)], count))
    colours = visible_on(sketch.background[0])
    placed: list[Placed] = []
    for cell in cells:
        if placed and random.random() < alike:
            before = random.choice(placed)[0]
            name, colour = before.name, before.colour
            if random.random() < 0.4:
                colour = random.choice(colours)
            elif random.random() < 0.3:
                name = random.choice(NAMES)
        else:
            name, colour = random.choice(NAMES), random.choice(colours)
        placed.append((place_shape(random, sketch, name, colour, cell), cell))
    return placed


def place_shape(
    random: Random, sketch: Sketch, name: str, colour: str, cell: Cell, radius: tuple[float, float] | None = None
) -> Shape:
    """A shape in a cell, small or large unless its radius (as a share of half a cell) is given."""
    width, height = sketch.units
    size = random.choice(tuple(SIZES))
    share = random.uniform(*(radius or SIZES[size]))
    x = (cell[1] + 0.5 + random.uniform(-JITTER, JITTER)) * width / 3
    y = (cell[0] + 0.5 + random.uniform(-JITTER, JITTER)) * height / 3
    r = share * min(width, height) / 6
    return Shape(name, colour, size, shade(random, colour), round(x, 1), round(y, 1), round(r, 1))


def describe(placed: list[Placed], facts: list[tuple[Text, int]]) -> str:
    """The description, in reading order."""
    items = [
        (cell, f"a {shape.size} {shape.colour} {shape.name} {wording.PLACES[cell[0]][cell[1]]}")
        for shape, cell in placed
    ]
    items += [((row, 0), f"{texts.phrase(text)} {wording.PLACES[row][1]}") for text, row in facts]
    return f"The picture shows {listing([item for _, item in sorted(items)])}."


def questions(random: Random, placed: list[Placed]) -> list[Question]:
    """Everything to ask about shapes."""
    shapes = [shape for shape, _ in placed]
    by_name, by_colour = Counter(s.name for s in shapes), Counter(s.colour for s in shapes)
    both = Counter((s.colour, s.name) for s in shapes)
    asked = []
    for shape, (row, column) in placed:
        place = wording.PLACES[row][column]
        whole = f"{shape.colour} {shape.name}"
        asked.append(
            Question(
                "colour",
                ask(random, wording.WHAT_COLOUR, f"the shape {place}"),
                f"The shape {place} is {shape.colour}.",
            )
        )
        asked.append(Question("shape", ask(random, wording.WHAT_SHAPE, place), f"It is {article(whole)}."))
        if by_name[shape.name] == 1:
            asked.append(
                Question(
                    "colour",
                    ask(random, wording.WHAT_COLOUR, f"the {shape.name}"),
                    f"The {shape.name} is {shape.colour}.",
                )
            )
            asked.append(
                Question("place", ask(random, wording.WHERE, f"the {shape.name}"), f"The {shape.name} is {place}.")
            )
            asked.append(
                Question(
                    "size", ask(random, wording.HOW_LARGE, f"the {shape.name}"), f"The {shape.name} is {shape.size}."
                )
            )
        if by_colour[shape.colour] == 1:
            asked.append(
                Question("shape", ask(random, wording.WHAT_SHAPE, shape.colour), f"The {shape.name} is {shape.colour}.")
            )
        if both[shape.colour, shape.name] == 1:
            asked.append(Question("place", ask(random, wording.WHERE, f"the {whole}"), f"The {whole} is {place}."))
    asked.append(_count(random, "shape", len(shapes)))
    name, colour = random.choice(NAMES), random.choice(shapes).colour
    asked.append(_count(random, name, by_name[name]))
    asked += [_count(random, name, by_name[name]) for name in by_name]
    asked.append(_count(random, f"{colour} shape", by_colour[colour]))
    asked += [_is_there(random, shapes) for _ in range(3)]
    asked += _absent(random, shapes)
    return asked


def _count(random: Random, noun: str, count: int) -> Question:
    number = wording.NUMBERS[count]
    answer = f"There is one {noun}." if count == 1 else f"There are {number} {plural(noun)}."
    return Question("count", ask(random, wording.HOW_MANY, plural(noun)), answer)


def _is_there(random: Random, shapes: list[Shape]) -> Question:
    shape = random.choice(shapes)
    colour, name = shape.colour, shape.name
    there = {(s.colour, s.name) for s in shapes}
    if random.random() < 0.5:
        while (colour, name) in there:  # off by the colour or by the shape, not by everything
            if random.random() < 0.5:
                colour, name = random.choice([s.colour for s in shapes] + list(COLOURS)), shape.name
            else:
                colour, name = shape.colour, random.choice(NAMES)
    what = article(f"{colour} {name}")
    yes = (colour, name) in there
    asked = ask(random, wording.IS_THERE, what)
    return Question("yes/no", asked, f"Yes, there is {what}." if yes else f"No, there is no {colour} {name}.")


def _absent(random: Random, shapes: list[Shape]) -> list[Question]:
    """Questions that assume what is not there, and a chart that is none."""
    missing = random.choice([name for name in NAMES if all(s.name != name for s in shapes)])
    wordings = random.choice((wording.WHERE, wording.WHAT_COLOUR))
    asked = [Question("absent", ask(random, wordings, f"the {missing}"), f"There is no {missing}.")]
    if random.random() < 0.3:
        asked.append(Question("absent", ask(random, wording.TALLEST, "the tallest"), "There is no chart."))
    return asked


def _no_text(random: Random) -> Question:
    return Question("absent", ask(random, wording.READ), "There is no text.")
