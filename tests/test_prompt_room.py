"""Two hundred photographs that cannot fit are refused before one of them is decoded."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip, write_gif
from PIL import Image

from smolvlm_edge import ContextError, IntegrityError, RequestError, SmolVLM, Video
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.pictures import images, video


def test_tokens_are_counted_before_pictures_are_decoded(
    tiny_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "photo.png")
    with SmolVLM.load(tiny_bundle()) as model:
        few = [tmp_path / "photo.png"] * 2
        timings = model.generate(few, "describe", max_tokens=1).timings
        image_tokens = timings.tiles // 2 * model.bundle.model.image_seq_len
        many = [tmp_path / "photo.png"] * (2 * model.bundle.model.text.max_position_embeddings)

        def decoded(*_: object, **__: object) -> None:
            raise AssertionError("a picture was decoded")

        monkeypatch.setattr(images, "upright_rgb", decoded)
        with pytest.raises(RequestError, match=r"the prompt takes \d+ tokens") as raised:
            model.generate(many, "describe", max_tokens=1)
        (refused,) = model.generate_many([{"images": many, "prompt": "describe"}], max_tokens=1)
    assert str(refused) == str(raised.value)
    count = int(str(raised.value).split("takes ")[1].split()[0])
    assert count >= len(many) * image_tokens


@pytest.mark.parametrize("kind", ["mp4", "gif", "folder", "list"])
def test_frames_are_counted_before_they_are_decoded(
    kind: str, tiny_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmolVLM.load(tiny_bundle()) as model:
        config = model.bundle.model
        count = config.text.max_position_embeddings // config.image_seq_len + 1
        path = tmp_path / f"clip.{kind}"
        if kind == "mp4":
            write_clip(path, count)
        elif kind == "gif":
            write_gif(path, count)
        else:
            path.mkdir()
            for number in range(count):
                Image.new("RGB", (20, 20), (number % 256, 0, 0)).save(path / f"frame-{number}.png")
        source = sorted(path.iterdir()) if kind == "list" else path

        def decoded(*_: object, **__: object) -> None:
            raise AssertionError("a frame was decoded")

        monkeypatch.setattr(video, "cut", decoded)
        clips = [Video(source, frames=count)], [Video(source, frames=count // 2 + 1)] * 2
        for clip in clips:
            with pytest.raises(RequestError, match=r"the prompt takes \d+ tokens"):
                model.generate(clip, "describe", max_tokens=1)


def test_frames_that_may_be_fewer_are_looked_at(tiny_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """Hundreds of frames in the first second, then one that stays: most of the moments show that one."""
    with SmolVLM.load(tiny_bundle()) as model:
        config = model.bundle.model
        count = config.text.max_position_embeddings // config.image_seq_len + 1
        shown = [*range(0, 1000, 1000 // count), 3 * count * 100]
        clip = Video(write_clip(tmp_path / "a.mkv", len(shown), rate=100, milliseconds=shown), frames=count)
        assert model.generate(clip, "describe", max_tokens=1).token_ids


@pytest.mark.parametrize("text", ["word " * 2_000_000, " " * 10_000_000 + "x", "é" * 10_000_000])
def test_ten_million_characters_are_refused_before_they_are_tokenized(
    tiny_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with SmolVLM.load(tiny_bundle()) as model:
        monkeypatch.setattr(PromptEncoder, "_tokens", lambda *_: pytest.fail("it was tokenized"))
        with pytest.raises(ContextError, match="characters"):
            model.generate(prompt=text)


@pytest.mark.parametrize("pre_tokenizer", [{"type": "FixedLength", "length": 0}])
def test_a_tokenizer_that_panics_ends_the_stream_with_an_error(
    tiny_bundle: Callable[..., Path], tmp_path: Path, pre_tokenizer: dict[str, object]
) -> None:
    """A panic of tokenizers' Rust is no Exception: the thread behind a stream would die without a word."""
    bundle = Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))
    tokenizer = json.loads((bundle / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = pre_tokenizer
    (bundle / "tokenizer.json").write_text(json.dumps(tokenizer))

    async def read(model: SmolVLM) -> list[int]:
        return [chunk.token_id async for chunk in model.astream(prompt="Hello", max_tokens=2)]

    with pytest.raises(IntegrityError, match="tokenizer"), SmolVLM.load(bundle) as model:
        asyncio.run(asyncio.wait_for(read(model), 60))
