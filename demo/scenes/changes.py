"""Scenes of several pictures: what changed between two, and what happens in a few frames."""

from dataclasses import replace
from random import Random

from smolvlm_edge.demo.scenes import shapes, wording
from smolvlm_edge.demo.scenes.palette import shade, visible_on
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import Question, Scene, Shape, Sketch
from smolvlm_edge.demo.scenes.shapes import Placed
from smolvlm_edge.demo.scenes.wording import article, ask

Change = tuple[list[Placed], list[Placed], str]
"""Before, after, and what there is to say about it."""
FRAMES = 4
STEP = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}


def pair(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001 - every maker is called alike
    """Two pictures of the same one to four shapes, but for one thing."""
    sketch = blank(random)
    placed = _distinct(random, sketch, random.randint(1, 4))
    change = random.choice((_recolour, _move, _remove, _add, _nothing))
    before, after, says = change(random, sketch, placed)
    pictures = tuple(sketch.with_marks(tuple(shape for shape, _ in placed)) for placed in (before, after))
    return Scene(
        pictures,
        (
            Question("two pictures", ask(random, wording.CHANGED), says),
            Question("two pictures", ask(random, wording.DESCRIBE), f"There are two pictures. {says}"),
            *_about_each(random, before, after),
        ),
        split=random.random() < 0.4,
    )


def clip(random: Random, *, held_out: bool) -> Scene:  # noqa: ARG001
    """Four frames in which one shape moves, grows, shrinks, changes its colour or does nothing."""
    sketch = blank(random, ((1, 1), (4, 3)))
    colours = visible_on(sketch.background[0])
    name, colour = random.choice(shapes.NAMES), random.choice(colours)
    shape = shapes.place_shape(random, sketch, name, colour, (1, 1), radius=(0.5, 0.9))
    event = random.choice((*STEP, *STEP, "grows", "shrinks", "colour", "colour", "nothing"))
    frames = [shape] * FRAMES
    what = f"The {colour} {name}"
    if event in STEP:
        frames = [_shifted(shape, sketch, event, i / (FRAMES - 1) - 0.5) for i in range(FRAMES)]
        says = f"{what} moves {event}."
    elif event in {"grows", "shrinks"}:
        factors = [0.5, 0.85, 1.3, 1.8] if event == "grows" else [1.8, 1.3, 0.85, 0.5]
        frames = [replace(shape, radius=round(shape.radius * factor, 1)) for factor in factors]
        says = f"{what} {event}."
    elif event == "colour":
        other = random.choice([c for c in colours if c != colour])
        changed = replace(shape, colour=other, rgb=shade(random, other))
        turn = random.randint(1, FRAMES - 1)
        frames = [shape] * turn + [changed] * (FRAMES - turn)
        says = f"The {name} changes from {colour} to {other}."
    else:
        says = f"{what} does not move."
    return Scene(
        tuple(sketch.with_marks((frame,)) for frame in frames),
        (Question("frames", ask(random, wording.HAPPENS), says),),
        split=False,
    )


def _about_each(random: Random, before: list[Placed], after: list[Placed]) -> list[Question]:
    """Where every shape is, or in which colour, in the one and in the other picture."""
    asked = []
    names = sorted({shape.name for shape, _ in (*before, *after)})
    for number, placed in (("first", before), ("second", after)):
        there = {shape.name: (shape.colour, cell) for shape, cell in placed}
        for name in names:
            wordings = random.choice((wording.WHERE, wording.WHAT_COLOUR))
            says = f"There is no {name}."
            if name in there:
                colour, (row, column) = there[name]
                says = f"The {name} is {wording.PLACES[row][column] if wordings is wording.WHERE else colour}."
            asked.append(Question("one of two", ask(random, wordings, f"the {name} in the {number} picture"), says))
    return asked


def _distinct(random: Random, sketch: Sketch, count: int) -> list[Placed]:
    """Shapes of different names, so that `the circle` is clear."""
    names = random.sample(shapes.NAMES, count)
    cells = sorted(random.sample([(row, column) for row in range(3) for column in range(3)], count))
    colours = visible_on(sketch.background[0])
    return [
        (shapes.place_shape(random, sketch, name, random.choice(colours), cell), cell)
        for name, cell in zip(names, cells, strict=True)
    ]


def _recolour(random: Random, sketch: Sketch, placed: list[Placed]) -> Change:
    i = random.randrange(len(placed))
    shape, cell = placed[i]
    colour = random.choice([c for c in visible_on(sketch.background[0]) if c != shape.colour])
    new = replace(shape, colour=colour, rgb=shade(random, colour))
    return placed, _with(placed, i, (new, cell)), f"The {shape.name} changed from {shape.colour} to {colour}."


def _move(random: Random, sketch: Sketch, placed: list[Placed]) -> Change:
    i = random.randrange(len(placed))
    shape = placed[i][0]
    row, column = random.choice(_free(placed))
    width, height = sketch.units
    new = replace(shape, x=round((column + 0.5) * width / 3, 1), y=round((row + 0.5) * height / 3, 1))
    says = f"The {shape.colour} {shape.name} moved to the {wording.SPOTS[row][column]}."
    return placed, _with(placed, i, (new, (row, column))), says


def _remove(random: Random, _: Sketch, placed: list[Placed]) -> Change:
    i = random.randrange(len(placed))
    shape = placed[i][0]
    return placed, placed[:i] + placed[i + 1 :], f"The {shape.colour} {shape.name} is gone."


def _add(random: Random, _: Sketch, placed: list[Placed]) -> Change:
    i = random.randrange(len(placed))
    shape = placed[i][0]
    what = article(f"{shape.colour} {shape.name}")
    return placed[:i] + placed[i + 1 :], placed, f"{what[0].upper()}{what[1:]} was added."


def _nothing(_: Random, __: Sketch, placed: list[Placed]) -> Change:
    return placed, placed, "Nothing changed."


def _with(placed: list[Placed], i: int, new: Placed) -> list[Placed]:
    return [*placed[:i], new, *placed[i + 1 :]]


def _free(placed: list[Placed]) -> list[tuple[int, int]]:
    taken = {cell for _, cell in placed}
    return [(row, column) for row in range(3) for column in range(3) if (row, column) not in taken]


def _shifted(shape: Shape, sketch: Sketch, direction: str, share: float) -> Shape:
    width, height = sketch.units
    across, down = STEP[direction]
    return replace(
        shape,
        x=round(shape.x + across * share * 0.55 * width, 1),
        y=round(shape.y + down * share * 0.55 * height, 1),
    )
