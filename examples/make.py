"""Draw the example pictures, or ask the demonstration model about them.

* `python examples/make.py` draws examples/*.png;
* `python examples/make.py --ask` prints the README's table of questions and answers.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random

from smolvlm_edge import SmolVLM
from smolvlm_edge.demo.scenes import Sketch, draw
from smolvlm_edge.demo.scenes.palette import COLOURS
from smolvlm_edge.demo.scenes.scene import Bar, Line, Mark, Shape, Text
from smolvlm_edge.demo.scenes.shapes import place_shape

FOLDER = Path(__file__).parent
WHITE = ((255, 255, 255), (255, 255, 255))
SQUARE = Sketch(384, 384, WHITE, ())

ASKED = (
    (("shapes.png",), "describe"),
    (("shapes.png",), "Where is the blue star?"),
    (("shapes.png",), "Is there a red circle?"),
    (("text.png",), "What does it say?"),
    (("small-text.png",), "What does the green text say?"),
    (("chart.png",), "Which bar is the tallest?"),
    (("chart.png",), "What is the value of the purple bar?"),
    (("before.png", "after.png"), "What changed?"),
    (tuple(f"clip-{i}.png" for i in range(1, 5)), "What happens?"),
)


def sketches() -> dict[str, Sketch]:
    """Every example by its file's name."""
    random = Random(0)

    def shape(name: str, colour: str, cell: tuple[int, int], radius: float) -> Shape:
        return place_shape(random, SQUARE, name, colour, cell, (radius, radius))

    circle, star, triangle = (
        shape("circle", "red", (0, 0), 0.8),
        shape("star", "blue", (1, 1), 0.42),
        shape("triangle", "green", (2, 2), 0.8),
    )
    wide = replace(SQUARE, width=480, height=360)
    moving = [replace(circle, x=x, y=96.0) for x in (45.0, 80.0, 115.0, 148.0)]
    return {
        "shapes.png": SQUARE.with_marks((circle, star, triangle)),
        "text.png": wide.with_marks((_text("HELLO", "blue", 36, 82, 44, 2),)),
        "small-text.png": wide.with_marks(
            (
                _text("NOVEL", "red", 24, 32, 13, 1),
                _text("K7XQ", "green", 120, 78, 13, 0),
                _text("teapot", "purple", 58, 124, 13, 3),
            )
        ),
        "chart.png": wide.with_marks(_bars({"red": 3, "blue": 7, "orange": 5, "purple": 4})),
        "before.png": SQUARE.with_marks((circle, star, triangle)),
        "after.png": SQUARE.with_marks((circle, replace(star, colour="orange", rgb=COLOURS["orange"]), triangle)),
        **{f"clip-{i}.png": SQUARE.with_marks((frame,)) for i, frame in enumerate(moving, start=1)},
    }


def _text(string: str, colour: str, x: float, y: float, size: float, font: int) -> Text:
    return Text(string, colour, COLOURS[colour], x, y, font, size)


def _bars(values: dict[str, int]) -> tuple[Mark, ...]:
    floor, black = 132.0, COLOURS["black"]
    marks: list[Mark] = []
    for i, (colour, value) in enumerate(values.items()):
        left, top = 28 + 40.0 * i, floor - 11.0 * value
        marks += [
            Bar(colour, COLOURS[colour], left, top, left + 26, floor),
            Text(str(value), "black", black, left + 8, top - 3, 1, 17),
        ]
    return (*marks, Line("black", black, ((16, 14), (16, floor), (184, floor)), 1.5))


def main() -> None:
    """Draw or ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ask", action="store_true", help="print questions and answers instead of drawing")
    if not parser.parse_args().ask:
        for name, sketch in sketches().items():
            draw(sketch).save(FOLDER / name)
        return
    model = SmolVLM.load("demo")
    print("| pictures | question | answer |\n|---|---|---|")
    for names, question in ASKED:
        answer = model.generate([FOLDER / name for name in names], question, detail="low" if len(names) > 2 else "high")
        print(f"| {' '.join(f'`{name}`' for name in names)} | {question} | {answer} |")


if __name__ == "__main__":
    main()
