"""Bad files among good ones, and pictures made to take long beside questions that must not wait for them."""

import json
import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from command import smol_edge
from fuzz.picture_files import mutations
from PIL import Image
from test_video_kinds import gif_bomb, png_bomb

from smolvlm_edge import SmolVLM, StoppedError

pytestmark = pytest.mark.stress


def encoded(image: Image.Image, container: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def test_two_hundred_bad_files_among_twenty_good_ones(tiny_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    good = {f"good {number}.png" for number in range(20)}
    for number, name in enumerate(sorted(good)):
        level = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(level).save(folder / name)
    makers = [
        lambda _: b"",
        lambda number: b"no picture at all" * number,
        lambda number: encoded(Image.new("RGB", (90, 90)), "PNG")[: 40 + number % 20],
        lambda number: gif_bomb(4000, 200)[: -1 - number],
        lambda _: encoded(Image.new("1", (1, 300_000)), "PNG"),
    ]
    for number in range(195):
        (folder / f"bad {number}.png").write_bytes(makers[number % len(makers)](number))
    for number, name in enumerate(("\x1b[2Jred.png", "gone.png", os.fsdecode(b"\xff\xfe.png"), "line\nbreak.png")):
        (folder / name).write_bytes(b"x" * number)
    (folder / "gone.png").unlink()
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    out = tmp_path / "captions.jsonl"
    command = ("describe", folder, "--out", out, "--model", tiny_bundle(), "--max-tokens", "3", "--detail", "low")
    result = smol_edge(*command)
    assert result.returncode == 6, result.stderr
    lines = [json.loads(line) for line in out.read_bytes().splitlines()][1:]
    assert {Path(line["file"]).name for line in lines if "text" in line} == good
    assert sum("error" in line for line in lines) == 200
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr
    assert smol_edge(*command).returncode == 6, "a later run tries them again and ends as well"


def test_mutated_files_end_no_batch(tiny_bundle: Callable[..., Path]) -> None:
    files = [data for _, data in mutations(400, seed=24)]
    with SmolVLM.load(tiny_bundle()) as model:
        requests = [{"images": data, "prompt": "describe"} for data in files]
        assert len(list(model.generate_many(requests, max_tokens=1, detail="low"))) == 400


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


BOMBS: dict[str, Callable[[], bytes]] = {
    "GIF": lambda: gif_bomb(4000, 120),
    "APNG": lambda: png_bomb(4000, 120),
    "PNG": lambda: encoded(Image.new("L", (9400, 9400)), "PNG"),
    "JPEG 2000": lambda: encoded(Image.new("RGB", (2800, 2800)), "JPEG2000"),
    "noise in JPEG 2000": lambda: encoded(noise(2800), "JPEG2000"),
    "1 x 80,000,000": lambda: encoded(Image.new("1", (1, 300_000)), "PNG").replace(
        struct.pack(">II", 1, 300_000), struct.pack(">II", 1, 80_000_000)
    ),
    "WebP": lambda: encoded(Image.new("RGB", (6600, 6600)), "WEBP"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_beside_a_question_that_keeps_its_deadline(kind: str, tiny_bundle: Callable[..., Path]) -> None:
    """The question has another model in the same process; a lock held while decoding would keep it past its time."""
    bomb, outcomes = BOMBS[kind](), []

    def explode(model: SmolVLM) -> None:
        try:
            outcomes.append(model.generate(bomb, "describe", max_tokens=1, timeout=2))
        except Exception as error:  # noqa: BLE001 - looked at below
            outcomes.append(error)

    with SmolVLM.load(tiny_bundle(), threads=1) as one, SmolVLM.load(tiny_bundle(), threads=1) as other:
        small = np.zeros((40, 60, 3), np.uint8)
        other.generate(small, "describe", max_tokens=1)
        beside = Thread(target=explode, args=[one])
        beside.start()
        while beside.is_alive():
            other.generate(small, "describe", max_tokens=1, timeout=2)  # or StoppedError
        beside.join()
    (outcome,) = outcomes
    assert not isinstance(outcome, Exception) or isinstance(outcome, StoppedError | ValueError), outcome
