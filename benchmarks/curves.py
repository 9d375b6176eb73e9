"""Curves of several systems in panels side by side, as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from smolvlm_edge.quality.plot import BASELINE, FONT_SIZE, STYLE, Axis, linear_axis, text_at

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 400, 300, 60, 40, 250
"""Of a panel, and the edges of the field between its axes."""
LINE = 20
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bc4c00", "#57606a", "#bf3989", "#1b7c83")
CURVE_STYLE = "polyline { fill: none; stroke-width: 2 }"


@dataclass(frozen=True)
class Panel:
    """One field: what is drawn upwards, over what, and the points of every curve by name."""

    title: str
    over: str
    curves: dict[str, list[tuple[float, float]]]


def draw(panels: Sequence[Panel]) -> str:
    """The document; its legend stands below the panels."""
    names = list(dict.fromkeys(name for panel in panels for name, points in panel.curves.items() if points))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    height = HEIGHT + LINE * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {height}" role="img">',
        f"<title>{escape('; '.join(f'{panel.title}, over {panel.over}' for panel in panels))}</title>",
        f"<style>{STYLE}{CURVE_STYLE}</style>",
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, colours), "</g>"]
    for line, name in enumerate(names):
        y = HEIGHT + line * LINE
        parts.append(f'<path stroke="{colours[name]}" stroke-width="2" d="M{LEFT} {y}h24"/>')
        parts.append(text_at(LEFT + 32, y + BASELINE, name, "start"))
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, colours: dict[str, str]) -> Iterator[str]:
    points = [point for curve in panel.curves.values() for point in curve] or [(0.0, 0.0)]
    # both axes begin at 0, so that what grows in proportion looks it
    x = linear_axis([0.0, *(point[0] for point in points)], LEFT, WIDTH - FONT_SIZE, from_zero=True)
    y = linear_axis([0.0, *(point[1] for point in points)], BOTTOM, TOP, from_zero=True)
    yield from _grid(x, y)
    yield text_at((LEFT + WIDTH) / 2, HEIGHT - 14, panel.over, "middle")
    yield text_at(10, TOP - 18, panel.title, "start")
    for name, curve in panel.curves.items():
        if curve:
            drawn = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve)
            yield f'<polyline stroke="{colours[name]}" points="{drawn}"><title>{escape(name)}</title></polyline>'
        for a, b in curve:
            tip = escape(f"{name}: {b:.4g} at {a:g}")
            yield f'<circle fill="{colours[name]}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"><title>{tip}</title></circle>'


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for tick in x.ticks:
        yield f'<path class="grid" d="M{x(tick):.1f} {TOP}V{BOTTOM}"/>'
        yield text_at(x(tick), BOTTOM + 18, f"{tick:g}", "middle")
    for tick in y.ticks:
        yield f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - FONT_SIZE}"/>'
        yield text_at(LEFT - 8, y(tick) + BASELINE, f"{tick:g}", "end")
