"""Bar charts, line charts and clocks."""

import math
from random import Random

from smolvlm_edge.demo.scenes import wording
from smolvlm_edge.demo.scenes.drawing import FONTS, text_width
from smolvlm_edge.demo.scenes.palette import Colour, shade, visible_on
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import Bar, Disc, Line, Mark, Question, Scene, Text
from smolvlm_edge.demo.scenes.wording import ask

ASPECTS = ((1, 1), (4, 3), (5, 4), (2, 1))
TOP_VALUE = 9
TRENDS = {
    "rises": (0.0, 0.5, 1.0),
    "falls": (1.0, 0.5, 0.0),
    "rises and then falls": (0.0, 1.0, 0.0),
    "falls and then rises": (1.0, 0.0, 1.0),
    "stays level": (0.5, 0.5, 0.5),
}


def bars(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001 - every maker is called alike
    """A chart of two to five bars of different colours and heights, with their values most of the time."""
    sketch = blank(random, ASPECTS)
    width, height = sketch.units
    ink = "black" if "black" in visible_on(sketch.background[0]) else "white"
    colours = random.sample(visible_on(sketch.background[0]), random.randint(2, 5))
    values = random.sample(range(1, TOP_VALUE + 1), len(colours))
    written = random.random() < 0.7
    font, size = random.randrange(len(FONTS)), random.uniform(15, 20)
    left, floor, ceiling = 0.08 * width, 0.92 * height, 0.06 * height + size
    step = 0.86 * width / len(colours)
    thickness = step * random.uniform(0.5, 0.8)
    marks: list[Mark] = []
    for i, (colour, value) in enumerate(zip(colours, values, strict=True)):
        x = left + (i + 0.5) * step
        top = floor - (floor - ceiling) * value / TOP_VALUE
        sides = _point(x - thickness / 2, top), _point(x + thickness / 2, floor)
        marks.append(Bar(colour, shade(random, colour), *sides[0], *sides[1]))
        if written:
            start = x - text_width(str(value), font, size) / 2
            marks.append(Text(str(value), ink, shade(random, ink), *_point(start, top - 3), font, round(size, 2)))
    marks.append(_axes(random, ink, left * 0.9, ceiling * 0.7, width * 0.96, floor))
    return Scene(
        (sketch.with_marks(tuple(marks)),),
        tuple(_bar_questions(random, dict(zip(colours, values, strict=True)), written)),
    )


def curve(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001
    """A line chart whose line has one plain tendency."""
    sketch = blank(random, ASPECTS)
    width, height = sketch.units
    ink = "black" if "black" in visible_on(sketch.background[0]) else "white"
    colour = random.choice(visible_on(sketch.background[0]))
    trend = random.choice(tuple(TRENDS))
    count = random.choice((5, 7))
    left, right, floor, ceiling = 0.12 * width, 0.92 * width, 0.84 * height, 0.12 * height
    low, high = (random.uniform(0.0, 0.25), random.uniform(0.75, 1.0)) if trend != "stays level" else (0.2, 0.8)
    level = random.uniform(0.2, 0.8)
    points = []
    for i in range(count):
        share = _shape_at(TRENDS[trend], i / (count - 1)) if trend != "stays level" else level
        share = low + (high - low) * share + random.uniform(-0.03, 0.03)
        points.append(_point(left + (right - left) * i / (count - 1), floor - (floor - ceiling) * share))
    marks: tuple[Mark, ...] = (
        _axes(random, ink, 0.08 * width, 0.06 * height, 0.96 * width, 0.92 * height),
        Line(colour, shade(random, colour), tuple(points), round(random.uniform(2.5, 5), 1), curve=True),
    )
    says = f"The line {trend}."
    return Scene(
        (sketch.with_marks(marks),),
        (
            Question("chart", ask(random, wording.TREND), says),
            Question("chart", ask(random, wording.WHAT_COLOUR, "the line"), f"The line is {colour}."),
            Question(
                "describe chart",
                ask(random, wording.DESCRIBE),
                f"The picture shows a line chart. The {colour} line {trend}.",
            ),
            Question("absent", ask(random, wording.TALLEST, "the tallest"), "There are no bars."),
        ),
    )


def clock(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001
    """A clock at a full or half hour."""
    sketch = blank(random, ((1, 1), (4, 3), (5, 4)))
    width, height = sketch.units
    hour, half = random.randint(1, 12), random.random() < 0.5
    ink: Colour = shade(random, "black")
    radius = random.uniform(0.36, 0.46) * min(width, height)
    x, y = width / 2, height / 2
    hand = random.uniform(0.06, 0.1) * radius

    def hand_to(turns: float, length: float, thickness: float) -> Line:
        angle = 2 * math.pi * turns
        tip = _point(x + length * radius * math.sin(angle), y - length * radius * math.cos(angle))
        return Line("black", ink, (_point(x, y), tip), round(thickness, 1))

    ticks = [_tick(x, y, radius, i, ink) for i in range(12)]
    face = Disc((252, 252, 250), ink, *_point(x, y), round(radius, 1))
    hands = (hand_to((hour + half * 0.5) / 12, 0.5, hand * 1.5), hand_to(half * 0.5, 0.82, hand))
    time = f"half past {wording.NUMBERS[hour]}" if half else f"{wording.NUMBERS[hour]} o'clock"
    return Scene(
        (sketch.with_marks((face, *ticks, *hands)),),
        (
            Question("clock", ask(random, wording.TIME), f"It is {time}."),
            Question("describe chart", ask(random, wording.DESCRIBE), f"The picture shows a clock. It is {time}."),
        ),
    )


def _bar_questions(random: Random, values: dict[str, int], written: bool) -> list[Question]:
    tallest, shortest = max(values, key=lambda c: values[c]), min(values, key=lambda c: values[c])
    number = wording.NUMBERS[len(values)]
    asked = [
        Question("chart", ask(random, wording.TALLEST, "the tallest"), f"The {tallest} bar is the tallest."),
        Question("chart", ask(random, wording.TALLEST, "the highest"), f"The {tallest} bar is the tallest."),
        Question("chart", ask(random, wording.TALLEST, "the shortest"), f"The {shortest} bar is the shortest."),
        Question("chart", ask(random, wording.HOW_MANY, "bars"), f"There are {number} bars."),
        Question(
            "describe chart",
            ask(random, wording.DESCRIBE),
            f"The picture shows a bar chart with {number} bars. The {tallest} bar is the tallest.",
        ),
    ]
    if written:
        asked += [
            Question("chart", ask(random, wording.VALUE, f"the {colour} bar"), f"The {colour} bar is {value}.")
            for colour, value in values.items()
        ]
    return asked


def _axes(random: Random, ink: str, left: float, top: float, right: float, floor: float) -> Line:
    return Line(ink, shade(random, ink), (_point(left, top), _point(left, floor), _point(right, floor)), 1.5)


def _tick(x: float, y: float, radius: float, i: int, ink: Colour) -> Line:
    sine, cosine = math.sin(math.pi * i / 6), -math.cos(math.pi * i / 6)
    ends = [_point(x + share * radius * sine, y + share * radius * cosine) for share in (0.84, 0.92)]
    return Line("black", ink, tuple(ends), 3.0 if i % 3 == 0 else 1.5)


def _shape_at(levels: tuple[float, float, float], share: float) -> float:
    start, middle, end = levels
    return start + (middle - start) * share * 2 if share < 0.5 else middle + (end - middle) * (share * 2 - 1)


def _point(x: float, y: float) -> tuple[float, float]:
    return round(x, 1), round(y, 1)
