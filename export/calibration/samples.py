"""What calibration runs through a model: conversations, and questions about pictures."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from smolvlm_edge.config import ImageConfig, ModelConfig
from smolvlm_edge.demo.scenes import MAKERS, draw, scenes
from smolvlm_edge.errors import RequestError
from smolvlm_edge.images import ImageSource, Tiles, cut, open_image
from smolvlm_edge.prompt import ContentPart, PromptEncoder
from smolvlm_edge.quantize import Floats

logger = logging.getLogger(__name__)

LONGEST = 1024  # positions; what a sample has more is left out
TEXT_TOKENS = 30_000
SCENES = 16
SPLIT_EVERY = 6  # one scene in so many is cut into 2 × 2 tiles and a global one; the others are one tile
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
DESCRIBE = "Describe this image."
PROSE = Path(__file__).with_name("prose.jsonl")


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of a conversation."""

    input_ids: npt.NDArray[np.int64]
    """[positions]"""
    tiles: tuple[Tiles, ...]
    """Of the pictures in it."""


@dataclass(frozen=True, slots=True)
class SampleMaker:
    """Turns questions and answers into samples for one model."""

    encoder: PromptEncoder
    images: ImageConfig
    model: ModelConfig

    def sample(
        self,
        pictures: Sequence[ImageSource],
        prompt: str,
        answer: str,
        *,
        split: bool | None = None,
        longest_edge: int | None = None,
    ) -> Sample:
        """The conversation as the model would see it, up to and with the end of the answer."""
        tiles = tuple(cut(open_image(each), self.images, split=split, longest_edge=longest_edge) for each in pictures)
        places: list[ContentPart] = [{"type": "image"} for _ in tiles]
        content: list[ContentPart] = [*places, {"type": "text", "text": prompt}]
        grids = [(each.rows, each.columns) for each in tiles]
        asked = self.encoder.encode([{"role": "user", "content": content}], grids)
        said = self.encoder.tokenizer.encode(f" {answer}", add_special_tokens=False).ids
        input_ids = np.array([*asked, *said, self.model.eos_token_ids[-1]], np.int64)
        return Sample(input_ids[:LONGEST], tiles)

    def sees_pictures(self) -> bool:
        """Whether the chat template has a place for them."""
        try:
            self.encoder.encode([{"role": "user", "content": [{"type": "image"}]}], [(0, 0)])
        except RequestError:
            return False
        return True

    def text(self, text: str) -> Iterator[Sample]:
        """A text in pieces, as it stands."""
        ids = np.array(self.encoder.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        return (Sample(ids[start : start + LONGEST], ()) for start in range(0, len(ids), LONGEST))


def bundled_samples(maker: SampleMaker) -> Iterator[Sample]:
    """The set that comes with the package: texts and conversations written for it, and drawn scenes."""
    tokens = 0
    for sample in _prose(maker):
        yield sample
        tokens += len(sample.input_ids)
        if tokens > TEXT_TOKENS:  # a tokenizer that was made for other texts spells these
            break
    if not maker.sees_pictures():
        logger.warning("the chat template has no place for pictures: int4 is fitted to text alone")
        return
    random = Random(0)  # noqa: S311 - is to be repeatable, not secret
    drawn = scenes(0, held_out=False, weights=dict.fromkeys(MAKERS, 1.0))
    for i, scene in enumerate(islice(drawn, SCENES)):
        question = random.choice(scene.questions)
        pictures = [draw(sketch) for sketch in scene.sketches]
        split = i % SPLIT_EVERY == 0 and len(pictures) == 1
        yield maker.sample(
            pictures, question.text, question.answer, split=split, longest_edge=2 * maker.images.tile_size
        )


def _prose(maker: SampleMaker) -> Iterator[Sample]:
    for line in PROSE.read_text(encoding="utf-8").splitlines():
        match json.loads(line):
            case {"text": text}:
                yield from maker.text(text)
            case {"prompt": prompt, "answer": answer}:
                yield maker.sample([], prompt, answer)


def folder_samples(folder: Path, maker: SampleMaker) -> Iterator[Sample]:
    """Pictures and texts of a user's own.

    NAME.jpg is a picture; NAME.txt beside it holds what is asked about it and, after an empty line, the answer. Any
    other .txt is plain text.

    Raises:
        RequestError: There is nothing in the folder.
        ImageError: A picture cannot be read.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder} is no folder: give --calibrate a folder of pictures and texts, or none")
    files = sorted(folder.iterdir())
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    texts = [file for file in files if file.suffix == ".txt" and file.stem not in {each.stem for each in pictures}]
    if not pictures and not texts:
        raise RequestError(f"{folder} holds no pictures ({', '.join(PICTURES)}) and no .txt files to calibrate with")
    for picture in pictures:
        prompt, _, answer = _read(picture.with_suffix(".txt")).partition("\n\n")
        yield maker.sample([picture], prompt.strip() or DESCRIBE, answer.strip())
    for text in texts:
        yield from maker.text(_read(text))


def tiles_of(samples: Iterable[Sample]) -> Iterator[Floats]:
    """pixel_values [3, H, W] of every tile in them."""
    for sample in samples:
        for picture in sample.tiles:
            for pixel_values in picture.pixel_values():
                yield pixel_values[0]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read as text: {error}") from error
