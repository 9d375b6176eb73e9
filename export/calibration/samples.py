"""What calibration runs through a model: conversations, and questions about pictures."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.demo.scenes import MAKERS, draw, scenes
from smolvlm_edge.errors import RequestError
from smolvlm_edge.pictures.images import Detail, Tiles, cut, open_image
from smolvlm_edge.pictures.sources import ImageSource
from smolvlm_edge.quantize import Floats

if TYPE_CHECKING:
    from smolvlm_edge.conversation.template import ContentPart

logger = logging.getLogger(__name__)

LONGEST = 2048  # positions; what a sample has more is left out
PIECE = 1024  # positions of a plain text
PER_COLUMN = 40
"""Positions for every column of the widest matrix: fewer leave its gram matrix to chance."""
WORK = 7e12
"""Products of a position and a weight of the decoder, which bounds the time that large models take ..."""
FEWEST = 8192
"""... but so many positions are always taken."""
SCENES = 24
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
        detail: Detail = "high",
        longest_edge: int | None = None,
    ) -> Sample:
        """The conversation as the model would see it, up to and with the end of the answer."""
        tiles = tuple(cut(open_image(each), self.images, detail=detail, longest_edge=longest_edge) for each in pictures)
        places: list[ContentPart] = [{"type": "image"} for _ in tiles]
        content: list[ContentPart] = [*places, {"type": "text", "text": prompt}]
        grids = [(each.rows, each.columns) for each in tiles]
        asked = self.encoder.encode([{"role": "user", "content": content}], grids)
        said = self.encoder.tokenizer.encode(f" {answer}", add_special_tokens=False).ids
        input_ids = np.array([*asked, *said, self.model.eos_token_ids[-1]], np.int64)
        return Sample(input_ids[: min(LONGEST, self._context)], tiles)

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
        piece = min(PIECE, self._context)
        return (Sample(ids[start : start + piece], ()) for start in range(0, len(ids), piece))

    @property
    def _context(self) -> int:
        return self.model.text.max_position_embeddings


def enough(samples: Iterable[Sample], model: ModelConfig) -> list[Sample]:
    """As many of the samples as calibration needs and has time for."""
    text = model.text
    hidden, heads = text.hidden_size, text.num_attention_heads * text.head_dim
    keys_and_values = 2 * text.num_key_value_heads * text.head_dim
    layer = hidden * (2 * heads + keys_and_values + 3 * text.intermediate_size)
    widest = max(hidden, heads, text.intermediate_size)
    positions = min(PER_COLUMN * widest, max(FEWEST, WORK / (layer * text.num_hidden_layers)))
    taken, count = [], 0
    for sample in samples:
        taken.append(sample)
        count += len(sample.input_ids)
        if count >= positions:
            break
    return taken


def bundled_samples(maker: SampleMaker) -> Iterator[Sample]:
    """The set that comes with the package: texts and conversations written for it, and drawn scenes among them."""
    lines = PROSE.read_text(encoding="utf-8").splitlines()
    Random(0).shuffle(lines)  # noqa: S311 - is to be repeatable, not secret
    pictures = _scenes(maker) if maker.sees_pictures() else None
    if pictures is None:
        logger.warning("the chat template has no place for pictures: int4 is fitted to text alone")
    for i, line in enumerate(lines):
        if pictures is not None and i % (len(lines) // SCENES) == 0:
            yield next(pictures)
        match json.loads(line):
            case {"text": text}:
                yield from maker.text(text)
            case {"prompt": prompt, "answer": answer}:
                yield maker.sample([], prompt, answer)


def _scenes(maker: SampleMaker) -> Iterator[Sample]:
    random = Random(0)  # noqa: S311
    for i, scene in enumerate(scenes(0, held_out=False, weights=dict.fromkeys(MAKERS, 1.0))):
        question = random.choice(scene.questions)
        pictures = [draw(sketch) for sketch in scene.sketches]
        detail: Detail = "high" if i % SPLIT_EVERY == 0 and len(pictures) == 1 else "low"
        yield maker.sample(
            pictures, question.text, question.answer, detail=detail, longest_edge=2 * maker.images.tile_size
        )


def folder_samples(folder: Path, maker: SampleMaker) -> Iterator[Sample]:
    """Pictures and texts of a user's own.

    NAME.jpg is a picture; NAME.txt beside it holds what is asked about it and, after an empty line, the answer. Any
    other .txt is plain text.

    Pictures and pieces of text take turns, each in an arbitrary order, which is the same every time: calibration may
    not need all of them.

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
    for files in (pictures, texts):
        Random(0).shuffle(files)  # noqa: S311 - is to be repeatable, not secret
    talk = (_picture_sample(file, maker) for file in pictures)
    prose = (sample for file in texts for sample in maker.text(_read(file)))
    for samples in zip_longest(talk, prose):
        yield from (sample for sample in samples if sample is not None)


def _picture_sample(file: Path, maker: SampleMaker) -> Sample:
    prompt, _, answer = _read(file.with_suffix(".txt")).partition("\n\n")
    return maker.sample([file], prompt.strip() or DESCRIBE, answer.strip())


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
        raise RequestError.of_file(file, error, "read as text") from error
