"""Image features and greedy answers of two models about the same pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.demo.scenes import draw, scenes
from smolvlm_edge.errors import ImageError
from smolvlm_edge.graphs import Decoder, Engine, Floats, Graph
from smolvlm_edge.graphs.engines import Engines
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.pictures.images import open_image
from smolvlm_edge.pictures.sources import ImageSource

DRAWN = 4
DRAWN_KINDS = ("describing", "reading", "bars", "clock")
"""Scenes of one picture."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what an answer calls it."""

    name: str
    image: ImageSource


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of a picture."""

    features: tuple[Floats, ...]
    """Image features [image_seq_len, hidden] of every tile."""
    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class TileError:
    """How far the image features of a tile are from the reference's."""

    relative_error: float
    """Norm of the difference by norm of the reference's."""
    lowest_cosine: float
    """Of a token's features and the reference's."""

    @classmethod
    def of(cls, features: Floats, reference: Floats) -> Self:
        """Of features [image_seq_len, hidden]."""
        ours, theirs = features.astype(np.float64), reference.astype(np.float64)
        cosines = np.sum(ours * theirs, -1) / (np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1))
        return cls(float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)), float(cosines.min()))


@dataclass(frozen=True, slots=True)
class PictureFidelity:
    """A picture as a model sees and describes it, beside its reference."""

    name: str
    tiles: tuple[TileError, ...]
    text: str
    reference_text: str
    same_tokens: int
    """Tokens of the answers up to the first difference."""
    reference_tokens: int

    @classmethod
    def of(cls, picture: Picture, answer: Answer, reference: Answer) -> Self:
        """Compare two models' answers about a picture."""
        pairs = zip(answer.token_ids, reference.token_ids, strict=False)
        return cls(
            name=picture.name,
            tiles=tuple(map(TileError.of, answer.features, reference.features)),
            text=answer.text,
            reference_text=reference.text,
            same_tokens=sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)),
            reference_tokens=len(reference.token_ids),
        )

    @property
    def same_text(self) -> bool:
        """Whether the answers are the same to the letter."""
        return self.text == self.reference_text

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to millionths."""
        tiles = [{name: round(value, 6) for name, value in asdict(tile).items()} for tile in self.tiles]
        return {**asdict(self), "same_text": self.same_text, "tiles": tiles}


def drawn_pictures() -> list[Picture]:
    """A few held-out drawn scenes."""
    held_out = scenes(1, held_out=True, weights=dict.fromkeys(DRAWN_KINDS, 1.0))
    return [
        Picture(f"drawn scene {number}", draw(scene.sketches[0]))
        for number, scene in enumerate(islice(held_out, DRAWN), 1)
    ]


def pictures_from(paths: Sequence[Path]) -> list[Picture]:
    """Picture files, and all files of folders but hidden ones.

    Raises:
        ImageError: One of them is no picture, or a folder is empty.
    """
    found = []
    for path in paths:
        files = sorted(path.glob("[!.]*")) if path.is_dir() else [path]
        if not files:
            raise ImageError(f"{path} holds no pictures")
        found += [Picture(file.name, file) for file in files]
    for picture in found:
        open_image(picture.image)  # a bad one is found before minutes were spent on the others
    return found


def answer(
    pictures: Sequence[Picture],
    prompt: str,
    max_tokens: int,
    bundle: Bundle,
    engines: Engines,
    on_picture: Callable[[int, int], None] = lambda *_: None,
) -> list[Answer]:
    """Ask a model about every picture, greedily.

    Args:
        pictures: What is asked about, one by one.
        prompt: What is asked.
        max_tokens: Longest answer.
        bundle: The model.
        engines: Open its graphs.
        on_picture: Called with the answers so far and their total.

    Raises:
        ImageError: A picture cannot be read.
        RequestError: The prompt is empty, or the context holds no such picture.
    """
    answers: list[Answer] = []
    recorder = _Recorder(engines.vision)
    with SmolVLM(bundle, replace(engines, vision=recorder)) as model:
        for picture in pictures:
            recorder.features.clear()
            said = model.generate(picture.image, prompt, max_tokens=max_tokens)
            answers.append(Answer(tuple(recorder.features), said.token_ids, said.text))
            on_picture(len(answers), len(pictures))
    return answers


class _Recorder:
    """Opens graphs as another engine does and keeps what the connector says.

    So the features that are compared are those that the answer was made of, and no tile is encoded twice.
    """

    def __init__(self, engine: Engine) -> None:
        self.features: list[Floats] = []
        self.target = engine.target
        self._engine = engine

    def graph(self, path: Path) -> Graph:
        graph = self._engine.graph(path)
        return _Recorded(graph, self.features) if path.stem == "connector" else graph

    def decoder(self, path: Path, slots: int = 1) -> Decoder:
        return self._engine.decoder(path, slots)


class _Recorded:
    """A graph whose output [tiles, image_seq_len, hidden] is kept tile by tile."""

    def __init__(self, graph: Graph, kept: list[Floats]) -> None:
        self._graph, self._kept = graph, kept

    def __call__(self, array: npt.NDArray[np.generic]) -> Floats:
        output = self._graph(array)
        self._kept.extend(output)
        return output

    def close(self) -> None:
        self._graph.close()
