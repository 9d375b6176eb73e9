"""What a scene is: plain data, from which the picture is drawn and the answers follow."""

from dataclasses import dataclass, replace
from zlib import crc32

from smolvlm_edge.demo.scenes.palette import Colour

EDGE = 192
"""Units along a picture's longer side. All coordinates are in units, so a scene can be drawn at any size."""
HELD_OUT_SHARE = 8
"""One scene in so many belongs to the held-out side."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled shape around its centre."""

    name: str
    colour: str
    size: str
    """`small` or `large`."""
    rgb: Colour
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text."""

    string: str
    colour: str
    rgb: Colour
    x: float
    y: float
    """Left end of the baseline."""
    font: int
    size: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart, or any other filled rectangle."""

    colour: str
    rgb: Colour
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Line:
    """An open line through several points: an axis, a curve, a hand of a clock."""

    colour: str
    rgb: Colour
    points: tuple[tuple[float, float], ...]
    width: float
    curve: bool = False
    """Whether it carries the chart's message."""


@dataclass(frozen=True, slots=True)
class Disc:
    """A clock's face."""

    rgb: Colour
    rim: Colour
    x: float
    y: float
    radius: float


Mark = Shape | Text | Bar | Line | Disc


@dataclass(frozen=True, slots=True)
class Sketch:
    """One picture, not yet drawn."""

    width: int
    height: int
    """Pixels."""
    background: tuple[Colour, Colour]
    """At the top and at the bottom."""
    marks: tuple[Mark, ...]

    @property
    def units(self) -> tuple[float, float]:
        """Width and height in units."""
        longest = max(self.width, self.height)
        return EDGE * self.width / longest, EDGE * self.height / longest

    def with_marks(self, marks: tuple[Mark, ...]) -> "Sketch":
        """The same paper with other things on it."""
        return replace(self, marks=marks)


@dataclass(frozen=True, slots=True)
class Question:
    """Something that can be asked about a scene, with the one right answer."""

    kind: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture or several, with everything that can be asked about them."""

    sketches: tuple[Sketch, ...]
    questions: tuple[Question, ...]
    split: bool = True
    """Whether the pictures are meant to be cut into tiles; frames of a clip are not."""

    @property
    def held_out(self) -> bool:
        """Which side of the division the scene lies on: a function of what is drawn, so the sides cannot share one."""
        return crc32(repr(self.sketches).encode()) % HELD_OUT_SHARE == 0
