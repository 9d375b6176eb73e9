"""How cost grows: time and memory over the number of tiles and over depth, as JSON and two plots.

    python benchmarks/scaling.py CHECKPOINT --work FOLDER --picture photo.jpg --out scaling \
        --system "smol-edge int4*" --system "llama.cpp Q4_0" --system "optimum*"

writes scaling.json, scaling-tiles.svg and scaling-depth.svg, medians of --runs. Tiles come from wide views of the
picture, five tiles each and no two of them alike, and one unsplit; depth is a text of that many tokens, then decoding.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare import measure, parser_of, ready, write
from curves import Panel, draw
from measuring import Asker, Question, Run, median
from PIL import Image, ImageChops

TILES = (1, 5, 10, 20, 30, 40)
DEPTHS = (0, 1000, 2000, 4000, 6000, 7500)
WIDE = (2048, 512)
"""Cut into four tiles and a view of the whole by every released model."""
TILES_OF_WIDE = 5


def tile_questions(asker: Asker, picture: Path, folder: Path) -> Iterator[Question]:
    """One for each of TILES."""
    views = list(wide_views(picture, folder, max(TILES) // TILES_OF_WIDE))
    for tiles in TILES:
        shown = views[: max(1, tiles // TILES_OF_WIDE)]
        yield asker.about(f"tiles {tiles}", shown, "Describe this.", split=tiles > 1)


def wide_views(picture: Path, folder: Path, count: int) -> Iterator[Path]:
    """The picture in another shape, moved sideways by another distance each time."""
    view = Image.open(picture).convert("RGB").resize(WIDE)
    for number in range(count):
        path = folder / f"view-{number}.png"
        ImageChops.offset(view, number * WIDE[0] // (count + 1) + number).save(path)
        yield path


def curve(report: dict[str, Any], kind: str, field: str, divisor: float) -> dict[str, list[tuple[float, float]]]:
    """Points of every system: the question's number, and the median of a field."""
    curves = {}
    for name, system in report["systems"].items():
        numbered = {
            int(question.removeprefix(kind)): runs
            for question, runs in system["questions"].items()
            if question.startswith(kind)
        }
        points = [(x, median(runs, field)) for x, runs in sorted(numbered.items())]
        curves[name] = [(x, y / divisor) for x, y in points if y is not None]
    return curves


def with_token_ms(runs: list[Run]) -> None:
    """Milliseconds per token, which a straight line describes better than tokens per second."""
    for run in runs:
        run["token_ms"] = 1000 / run["decode_tokens_per_s"] if run["decode_tokens_per_s"] else None


def main() -> None:
    """Get ready, measure in turns, write and draw."""
    parser = parser_of(__doc__)
    parser.set_defaults(tokens=16, runs=3)
    options = parser.parse_args()
    found, failed = ready(options)
    asker = Asker(options.checkpoint, options.tokens, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        questions = [*tile_questions(asker, options.picture, Path(folder)), *map(asker.of_depth, DEPTHS)]
        results = measure(found, failed, questions, options)
    for each in results.values():
        for runs in each.values():
            with_token_ms(runs)
    asked = {name: getattr(options, name) for name in ("tokens", "threads", "runs", "busy")}
    write(options.out, results, found, failed, asked=asked | {"picture": options.picture.name})
    report = json.loads(options.out.with_suffix(".json").read_text())
    memory = ("peak RSS, MB", "peak_rss_bytes", 1e6)
    plots = {
        "tiles": [("time to first token, s", "ttft_ms", 1e3), memory],
        "depth": [("time to first token, s", "ttft_ms", 1e3), ("one more token, ms", "token_ms", 1), memory],
    }
    for kind, panels in plots.items():
        drawn = [Panel(title, kind, curve(report, f"{kind} ", field, by)) for title, field, by in panels]
        out = options.out.with_name(f"{options.out.name}-{kind}.svg")
        out.write_text(draw(drawn))
        print(out)


if __name__ == "__main__":
    main()
