"""What --detail saves and costs: tiles of ordinary sizes, and tiles and accuracy of a model with each setting.

    python benchmarks/detail.py                                  # the demonstration model on held-out drawn scenes
    python benchmarks/detail.py --model 256m-int4 --questions 300 --out detail.md
    python benchmarks/detail.py --questions 0 --preprocessor CHECKPOINT     # the table of sizes alone, by its rules

Tiles are those of the picture's grid and the whole picture, as the model is shown them; nothing is encoded for the
table of sizes. Questions about scenes that were drawn for one tile have one with every setting. Scenes are drawn as
large as what they are cut to, so that auto changes nothing; --side shrinks them first, to what auto is about.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

from PIL import Image

from smolvlm_edge import SmolVLM
from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.evaluation.drawn import DEFAULT_SEED, drawn_items
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.pictures.images import Detail, grid_of

DETAILS: tuple[Detail, ...] = get_args(Detail)
SIZES = {
    "icon": (64, 64),
    "avatar": (256, 256),
    "thumbnail": (320, 240),
    "VGA": (640, 480),
    "china.jpg": (640, 427),
    "square of social media": (1080, 1080),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "page at 100 dpi": (827, 1169),
    "page at 200 dpi": (1654, 2339),
    "photograph of 12 megapixels": (4032, 3024),
    "upright photograph": (3024, 4032),
    "screenshot of a phone": (1170, 2532),
    "panorama": (4000, 1000),
}


@dataclass
class Tally:
    """What the questions came to with one setting."""

    asked: int = 0
    right: float = 0.0
    tiles: int = 0


def tiles_of(size: tuple[int, int], config: ImageConfig, detail: Detail) -> int:
    """Tiles that a picture of that size becomes."""
    rows, columns = grid_of(Image.new("1", size), config, detail=detail)
    return rows * columns + 1


def sizes_table(config: ImageConfig) -> Iterator[str]:
    """Tiles of ordinary pictures, and what auto saves."""
    yield f"| picture | pixels | {' | '.join(DETAILS)} | auto saves |"
    yield f"|---|---:|{'---:|' * (len(DETAILS) + 1)}"
    for name, size in SIZES.items():
        tiles = {detail: tiles_of(size, config, detail) for detail in DETAILS}
        cells = " | ".join(str(tiles[detail]) for detail in DETAILS)
        yield f"| {name} | {size[0]} × {size[1]} | {cells} | {1 - tiles['auto'] / tiles['high']:.0%} |"


def ask(model: SmolVLM, questions: int, seed: int, sides: Sequence[int]) -> dict[tuple[int, Detail], Tally]:
    """Every question with every size and setting, one after the other; by side, 0 as drawn, and setting."""
    found = {(side, detail): Tally() for side in sides for detail in DETAILS}
    for item in islice(drawn_items(seed), questions):
        drawn = [image for image in item.images() if isinstance(image, Image.Image)]
        for (side, detail), tally in found.items():
            images = [shrunk(image, side) for image in drawn]
            setting: Detail = "low" if item.detail == "low" else detail
            answer = model.generate(images, item.prompt, max_tokens=64, detail=setting)
            tally.asked += 1
            tally.right += score(answer.text, item)
            tally.tiles += answer.timings.tiles
    return found


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side has at most so many pixels; 0 leaves it."""
    copy = image.copy()
    if side:
        copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def accuracy_table(found: dict[tuple[int, Detail], Tally]) -> Iterator[str]:
    """A row for every size and setting."""
    yield "| longer side | detail | questions | right | tiles a question |"
    yield "|---|---|---:|---:|---:|"
    for (side, detail), tally in found.items():
        right, tiles = tally.right / tally.asked, tally.tiles / tally.asked
        yield f"| {side or 'as drawn'} | {detail} | {tally.asked} | {100 * right:.1f} % | {tiles:.2f} |"


def main() -> None:
    """Two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="a bundle, or a name")
    parser.add_argument("--preprocessor", type=Path, help="folder whose rules the sizes go by; default the model's")
    parser.add_argument("--questions", type=int, default=300, help="0 asks none")
    parser.add_argument("--side", type=int, action="append", help="pixels to shrink scenes to; default 0 (not) and 96")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--out", type=Path, help="a file to write the tables to, besides")
    options = parser.parse_args()
    lines: list[str] = []
    with SmolVLM.load(options.model, offline=True) as model:
        config = ImageConfig.from_folder(options.preprocessor) if options.preprocessor else model.image_config
        lines += [f"Longest edge {config.longest_edge}, tiles of {config.tile_size} pixels:", "", *sizes_table(config)]
        if options.questions:
            lines += ["", *accuracy_table(ask(model, options.questions, options.seed, options.side or (0, 96)))]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
