"""Several bundles in one drawing: KL divergence against megabytes, as SVG."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product

from smolvlm_edge.quality.report import Quality

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, WIDTH - 30, 50, HEIGHT - 60
"""Edges of the field between the axes."""
FONT_SIZE, RADIUS = 13, 5
BASELINE = 4
"""Of a text, below the middle of its letters."""
CHARACTER = 0.62 * FONT_SIZE
"""Mean width of a label's characters, rather too much than too little."""
SMALLEST_KL = 1e-5
"""Less is drawn here: a logarithmic axis has no place for 0."""
STYLE = f"""
text {{ font: {FONT_SIZE}px system-ui, sans-serif; fill: #24292f }}
.grid {{ stroke: #d0d7de }} .leader {{ stroke: #8c959f }} .point {{ fill: #0969da }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .grid {{ stroke: #30363d }} .leader {{ stroke: #8b949e }} .point {{ fill: #58a6ff }}
}}
"""
"""No background: the page's own shows through, light or dark."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the drawing, in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two have an area in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


@dataclass(frozen=True, slots=True)
class Label:
    """Where a name stands."""

    box: Box
    anchor: str
    """The end of the text that is next to its point, in the words of SVG's text-anchor."""

    @property
    def x(self) -> float:
        """Where the anchor is."""
        return {"start": self.box.left, "end": self.box.right}.get(self.anchor, (self.box.left + self.box.right) / 2)

    @property
    def middle(self) -> float:
        """Half of the height."""
        return (self.box.top + self.box.bottom) / 2


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def plot(found: Sequence[Quality]) -> str:
    """The SVG of some bundles: a point each, its label beside it."""
    sizes = [quality.sizes.text / 1e6 for quality in found]
    divergences = [max(quality.text.kl, SMALLEST_KL) for quality in found]
    x, y = linear_axis(sizes, LEFT, RIGHT), _logarithmic_axis(divergences)
    points = [(x(size), y(math.log10(kl))) for size, kl in zip(sizes, divergences, strict=True)]
    names = [quality.name for quality in found]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape('KL divergence against megabytes: ' + ', '.join(names))}</title><style>{STYLE}</style>",
        *_grid(x, y),
    ]
    for (left, top), label, quality in zip(points, _labels(points, names), found, strict=True):
        tip = f"{quality.name}: {quality.sizes.text / 1e6:.1f} MB, KL {quality.text.kl:.4g}"
        if not label.box.top < top < label.box.bottom:  # not right beside its point
            parts.append(f'<path class="leader" d="M{left:.1f} {top:.1f}L{label.x:.1f} {label.middle:.1f}"/>')
        parts += [
            f'<circle class="point" cx="{left:.1f}" cy="{top:.1f}" r="{RADIUS}"><title>{escape(tip)}</title></circle>',
            text_at(label.x, label.middle + BASELINE, quality.name, label.anchor),
        ]
    return "\n".join([*parts, "</svg>\n"])


def linear_axis(values: Sequence[float], start: float, end: float, *, from_zero: bool = False) -> Axis:
    """Wider than the values, with four to ten round ticks.

    Args:
        values: What is to be drawn.
        start: Pixel of the low end.
        end: Pixel of the high end.
        from_zero: Whether the low end is 0.
    """
    margin = 0.1 * (max(values) - min(values)) or 0.1 * max(values) or 1.0
    low, high = 0.0 if from_zero else min(values) - margin, max(values) + margin
    power = 10 ** math.floor(math.log10(high - low))
    step = next(step * power for step in (2, 1, 0.5, 0.2) if (high - low) / (step * power) >= 4)
    ticks = tuple(i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, start, end, ticks)


def _logarithmic_axis(values: Sequence[float]) -> Axis:
    """Whole powers of ten around the values; with few of them, ticks at 2 and 5 as well."""
    low, high = math.floor(math.log10(min(values)) - 0.05), math.ceil(math.log10(max(values)) + 0.05)
    between = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [math.log10(each) + power for power, each in product(range(low, high + 1), between)]
    return Axis(low, high, BOTTOM, TOP, tuple(tick for tick in ticks if tick <= high))


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for tick in x.ticks:
        yield f'<path class="grid" d="M{x(tick):.1f} {TOP}V{BOTTOM}"/>'
        yield text_at(x(tick), BOTTOM + 20, f"{tick:g}", "middle")
    for tick in y.ticks:
        yield f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{RIGHT}"/>'
        yield text_at(LEFT - 8, y(tick) + BASELINE, f"{round(10**tick, 9):g}", "end")
    yield text_at((LEFT + RIGHT) / 2, HEIGHT - 15, "token table and decoder, MB", "middle")
    yield text_at(10, TOP - 22, "KL(reference || bundle), nats per token", "start")


def text_at(x: float, y: float, text: str, anchor: str) -> str:
    """A text whose start, middle or end is there."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _labels(points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[Label]:
    """A place for every name: the nearest to its point that is free."""
    taken = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    labels = []
    for point, name in zip(points, names, strict=True):
        places = list(_places(point, CHARACTER * len(name)))
        inside = [place for place in places if place.box.left >= LEFT and place.box.right <= RIGHT] or places
        free = (place for place in inside if not any(map(place.box.meets, taken)))
        labels.append(next(free, inside[0]))
        taken.append(labels[-1].box)
    return labels


def _places(point: tuple[float, float], width: float) -> Iterator[Label]:
    """Places of a name, the best first: to the right of the point, to the left, then above and below it."""
    x, y = point
    gap, half = RADIUS + 3, FONT_SIZE * 0.65
    lefts = {"start": x + gap, "end": x - gap - width, "middle": x - width / 2}
    for step in range(10):
        for middle in {y - step * half: None, y + step * half: None}:
            for anchor, left in lefts.items():
                yield Label(Box(left, middle - half, left + width, middle + half), anchor)
