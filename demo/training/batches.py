"""Scenes -> batches, drawn in a second process while the first one trains."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from queue import Full
from random import Random
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, multiprocessing

from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.demo.scenes import MAKERS, Question, Scene, draw, scenes, wording
from smolvlm_edge.demo.training import labels
from smolvlm_edge.demo.training.pages import page
from smolvlm_edge.pictures.images import cut

TRAINING_MAKERS = {**MAKERS, "page": page}
QUESTIONS = 9
"""Asked about one scene. They do not see each other, so each is like the only one."""
OFTEN = {"word": 4, "string": 4, "small text": 4, "two pictures": 4, "count": 3, "yes/no": 4}
"""How much likelier than another question of its scene one of these kinds is chosen."""
DESCRIBED = 0.5
CONVERSATIONS = 0.15
"""Share of the scenes whose questions do see each other, as the turns of a conversation."""
SORTED_BATCHES = 4
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Some scenes with their questions.

    Every sequence is the pictures, then the questions with their answers. A question looks at the pictures and
    at itself, and its positions go on where the pictures end.
    """

    tiles: Tensor
    """uint8 [tiles, tile, tile, 3], of all pictures of all scenes."""
    labels: Tensor
    """uint8 [tiles, targets, patches, patches]"""
    input_ids: Tensor
    """int64 [scenes, time]"""
    is_image: Tensor
    """bool [scenes, time]"""
    positions: Tensor
    """int64 [scenes, time]"""
    segments: Tensor
    """uint8 [scenes, time]: 0 for the pictures, 1 for the first question, ..., 255 for padding."""
    targets: Tensor
    """int64 [scenes, time]: the token that follows, where it belongs to an answer; else -100."""

    def allowed(self) -> Tensor:
        """Who may look at whom: bool [scenes, 1, time, time]."""
        time = self.input_ids.shape[1]
        asking, asked = self.segments[:, :, None], self.segments[:, None, :]
        causal = torch.ones(time, time, dtype=torch.bool).tril()
        return (causal & ((asked == 0) | (asked == asking)))[:, None]


class Batches:
    """Batches without end from a process of its own; the seed decides them all."""

    def __init__(self, folder: Path, weights: dict[str, float], scenes_per_batch: int, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue = context.Queue(maxsize=12)
        arguments = (self._queue, folder, weights, scenes_per_batch, seed)
        self._process = context.Process(target=_produce, args=arguments, daemon=True)
        self._process.start()

    def __next__(self) -> Batch:
        return Batch(*map(torch.from_numpy, self._queue.get()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()


class Encoder:
    """One scene -> tiles, labels and token ids, by the runtime's own preprocessing."""

    def __init__(self, folder: Path) -> None:
        self.model = ModelConfig.from_folder(folder)
        self.image = ImageConfig.from_folder(folder)
        self.patch = self.model.vision.patch_size
        self.prompt = PromptEncoder(folder, self.model)
        self._ids: dict[str, list[int]] = {}

    def pictures(
        self, scene: Scene, random: Random
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[tuple[int, int]]]:
        """Tiles, labels and grids."""
        tiles, marks, grids = [], [], []
        for sketch in scene.sketches:
            picture = cut(_photographed(random, draw(sketch)), self.image, detail="high" if scene.split else "low")
            tiles += picture.squares
            marks.append(labels.label(sketch, picture.rows, picture.columns, self.image.tile_size, self.patch))
            grids.append((picture.rows, picture.columns))
        return tiles, marks, grids

    def opening(self, grids: list[tuple[int, int]], random: Random) -> list[int]:
        """The pictures' token ids; half of the clips are announced as SmolVLM announces a video."""
        image = self.prompt.image_token
        as_video = len(grids) == 4 and random.random() < 0.5
        text = f" {_as_video(image, random)}" if as_video else image * len(grids)
        return self.ids(self.prompt.expand(f"<|im_start|>User:{text}", grids))

    def turn(self, question: Question, before: str = "") -> tuple[list[int], list[int]]:
        """Token ids of a question up to the start of its answer, and those of the answer."""
        return (
            self.ids(f"{before}{question.text}<end_of_utterance>\nAssistant:"),
            self.ids(f" {question.answer}<end_of_utterance>"),
        )

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of the prompt that ends or begins at a special token."""
        return self.prompt.tokenizer.encode(text, add_special_tokens=False).ids


def _as_video(image: str, random: Random) -> str:
    seconds = random.choice((1, 2, 3, 4, 6, 8, 12, 20))
    stamps = [f"00:{round(i * (seconds - 1) / 3):02d}" for i in range(4)]
    frames = "".join(f"\nFrame from {stamp}:{image}" for stamp in stamps)
    return (
        f"You are provided the following series of four frames from a 0:00:{seconds:02d} [H:MM:SS] video.\n{frames}\n\n"
    )


def _photographed(random: Random, image: Image.Image) -> Image.Image:
    """Some of the pictures come as JPEG."""
    if random.random() < 0.7:
        return image
    file = BytesIO()
    image.save(file, "JPEG", quality=random.randint(60, 95))
    return Image.open(file).convert("RGB")


def _produce(queue: multiprocessing.Queue, folder: Path, weights: dict[str, float], count: int, seed: int) -> None:
    torch.set_num_threads(1)
    encoder, random = Encoder(folder), Random(f"training {seed}")
    source = scenes(seed, held_out=False, weights=weights, makers=TRAINING_MAKERS)
    while True:
        several = [next(source) for _ in range(count * SORTED_BATCHES)]
        several.sort(key=_length)  # scenes of like length share a batch: less padding
        batches = [several[i : i + count] for i in range(0, len(several), count)]
        random.shuffle(batches)
        for batch in batches:
            _put(queue, _batch(encoder, batch, random))


def _put(queue: multiprocessing.Queue, batch: tuple[np.ndarray, ...]) -> None:
    """Wait for room; do not outlive the training, however it ended."""
    while True:
        try:
            queue.put(batch, timeout=10)
        except Full:
            if not multiprocessing.parent_process().is_alive():
                sys.exit()
        else:
            return


def _length(scene: Scene) -> int:
    """About how many tiles its pictures take."""
    return len(scene.sketches) * (5 if scene.split else 1)


def _batch(encoder: Encoder, batch: list[Scene], random: Random) -> tuple[np.ndarray, ...]:
    """The arrays of a `Batch`, in the order of its fields."""
    tiles: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    rows = []
    for scene in batch:
        own_tiles, own_marks, grids = encoder.pictures(scene, random)
        tiles += own_tiles
        marks += own_marks
        rows.append(_sequence(encoder, scene, grids, random))
    time = max(len(row[0]) for row in rows)
    image = encoder.model.image_token_id
    input_ids, positions, segments, targets = (
        np.stack([np.pad(row[i], (0, time - len(row[i])), constant_values=fill) for row in rows])
        for i, fill in enumerate((0, 0, 255, IGNORED))
    )
    arrays = {
        "tiles": np.stack(tiles),
        "labels": np.concatenate(marks),
        "input_ids": input_ids,
        "is_image": input_ids == image,
        "positions": positions,
        "segments": segments.astype(np.uint8),
        "targets": targets,
    }
    return tuple(arrays[field.name] for field in fields(Batch))


def _sequence(encoder: Encoder, scene: Scene, grids: list[tuple[int, int]], random: Random) -> list[np.ndarray]:
    """Token ids, positions, segments and targets of one scene."""
    ids = encoder.opening(grids, random)
    start = len(ids)
    positions, segments, targets = list(range(start)), [0] * start, [IGNORED] * start
    talking = random.random() < CONVERSATIONS
    before = "" if scene.sketches else " "
    for number, question in enumerate(_chosen(scene, random), start=1):
        asked, answer = encoder.turn(question, before)
        length = len(asked) + len(answer)
        ids += asked + answer
        positions += range(start, start + length)
        segments += [1 if talking else number] * length
        if talking:
            start, before = start + length, "\nUser: "
        targets += [IGNORED] * (len(asked) - 1) + answer + [IGNORED]
    return [np.array(values, np.int64) for values in (ids, positions, segments, targets)]


def _chosen(scene: Scene, random: Random) -> Iterator[Question]:
    """Some of a scene's questions: the description half of the time, and what is hard more often than the rest."""
    first = [q for q in scene.questions if q.kind.startswith("describe") and random.random() < DESCRIBED]
    rest = [q for q in scene.questions if not q.kind.startswith("describe")]
    rest.sort(key=lambda q: random.random() ** (1 / OFTEN.get(q.kind, 1)), reverse=True)
    yield from (first + rest)[:QUESTIONS]
    if scene.sketches and random.random() < 0.15:
        yield Question("modest", random.choice(wording.OUT_OF_REACH), wording.MODEST)
