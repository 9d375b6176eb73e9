"""The rules for videos: which frames, what the prompt says of them, what a checkpoint says; against transformers."""

import json
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import draw
from released_files import RELEASED, unpack
from sample_prompts import PICTURE, say, turn

from smolvlm_edge import IntegrityError, RequestError, Timeline, Video
from smolvlm_edge.bundle import TOKENIZER_FILES
from smolvlm_edge.bundle.config import ImageConfig, ModelConfig, VideoConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.pictures.video import read_clip
from smolvlm_edge.pictures.video.frames import sample_frames

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "video.json").read_text(encoding="utf-8"))
SMOLVLM2 = RELEASED.parent / "smolvlm2-256m-video-instruct"
VIDEO = {"type": "video"}


def lengthened(runs: list[Any]) -> list[int]:
    return list(chain.from_iterable([run[0]] * run[1] if isinstance(run, list) else [run] for run in runs))


@pytest.fixture(scope="module")
def smolvlm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpack(tmp_path_factory.mktemp("smolvlm2"))
    for file in SMOLVLM2.glob("*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(smolvlm2: Path) -> PromptEncoder:
    return PromptEncoder(smolvlm2, ModelConfig.from_folder(smolvlm2))


# -- which frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDENS["sampling"], ids=lambda case: f"{case['count']} at {case['frame_rate']:.4g}")
def test_frames_are_those_of_transformers(case: dict[str, Any]) -> None:
    rules = {key: case[key] for key in ("fps", "max_frames")}
    assert sample_frames(case["count"], case["frame_rate"], **rules) == case["numbers"]


counts = st.integers(1, 500_000)
rates = st.floats(0.1, 240)


@given(counts, rates, st.integers(1, 999))
def test_as_many_frames_as_asked_for_evenly_spaced(count: int, rate: float, frames: int) -> None:
    numbers = sample_frames(count, rate, fps=1, max_frames=64, frames=frames)
    gaps = np.diff(numbers)
    assert 0 <= numbers[0] <= numbers[-1] < count
    assert len(numbers) == min(frames, count) or numbers[0] > 0, "fewer only where the ends were left out"
    if len(numbers) > 1:
        assert gaps.min() > 0
        assert gaps.max() - gaps.min() <= 1


@given(counts, rates, st.floats(0, 1), st.floats(0, 1))
def test_a_part_is_kept_to(count: int, rate: float, one: float, other: float) -> None:
    duration = count / rate
    start, end = sorted((one * duration, other * duration))
    numbers = sample_frames(count, rate, fps=1, max_frames=64, start=start, end=end)
    times = [number / rate for number in numbers]
    slack = 1 / rate + 1e-6  # a part shorter than a frame still has one
    assert start - slack <= times[0] <= times[-1] <= max(end, start) + slack
    assert 1 <= len(numbers) <= 64


# -- what the prompt says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS["prompts"])
def test_token_ids_are_those_of_transformers(name: str, encoder: PromptEncoder) -> None:
    case = GOLDENS["prompts"][name]
    videos = [
        Timeline(count / frame_rate, tuple(number / frame_rate for number in numbers))
        for count, frame_rate, numbers in case["footage"]
    ]
    pictures = sum(part == PICTURE for message in case["messages"] for part in message["content"])
    ids = encoder.encode(case["messages"], [(0, 0)] * pictures, videos)
    assert ids.tolist() == lengthened(case["input_ids"])


def test_a_smolvlm_is_told_of_videos_by_smolvlms_template(smolvlm2: Path, tmp_path: Path) -> None:
    """transformers takes it for every conversation with a video, whatever the checkpoint's own is."""
    folder = shutil.copytree(smolvlm2, tmp_path / "tuned")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content[0].text }} only")
    tuned = PromptEncoder(folder, ModelConfig.from_folder(folder))
    case = GOLDENS["prompts"]["one_frame"]
    assert tuned.encode(case["messages"], [], [Timeline(0.04, (0.0,))]).tolist() == lengthened(case["input_ids"])
    assert tuned.tokenizer.decode(tuned.encode([turn("user", say("Hi"))], []).tolist()) == "Hi only"


def test_another_models_template_gets_the_same_words(tmp_path: Path) -> None:
    """An idefics3 checkpoint has no rule for videos: SmolVLM's words, within its own template."""
    folder = unpack(tmp_path)
    encoder = PromptEncoder(folder, ModelConfig.from_folder(folder))
    ids = encoder.encode([turn("user", VIDEO, say("What happens?"))], [], [Timeline(3.0, (0.0, 1.4))])
    assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False).replace("<image>" * 64, "<frame>") == (
        "<|im_start|>User: You are provided the following series of two frames from a 0:00:03 [H:MM:SS] video.\n\n"
        "Frame from 00:00:<fake_token_around_image><global-img><frame><fake_token_around_image>\n"
        "Frame from 00:01:<fake_token_around_image><global-img><frame><fake_token_around_image>\n\n"
        "What happens?<end_of_utterance>\nAssistant:"
    )


def test_places_and_videos_must_match(encoder: PromptEncoder) -> None:
    timeline = Timeline(1.0, (0.0,))
    for parts, grids, videos in (
        ([VIDEO], [], []),
        ([say("Hi")], [], [timeline]),
        ([PICTURE, VIDEO], [], [timeline]),
        ([VIDEO], [(0, 0)], [timeline]),
    ):
        with pytest.raises(RequestError, match="places for"):
            encoder.encode([turn("user", *parts)], grids, videos)


# -- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["48x36", "90x160", "320x180"])
def test_frames_are_those_of_smolvlms_video_processor(size: str) -> None:
    """But for its resizing by torchvision, which rounds otherwise than Pillow, and takes the two directions of an
    upright frame in another order: three grey levels at most."""
    width, height = map(int, size.split("x"))
    rules = VideoConfig.from_folder(SMOLVLM2)
    rules = replace(rules, frame=replace(rules.frame, longest_edge=64, tile_size=32))
    clip = read_clip(Video([draw(width, height, seed) for seed in (1, 2)]), rules)
    with np.load(Path(__file__).parent / "goldens" / "video.npz") as goldens:
        expected = goldens[size]
    found = np.stack([tiles.squares[0].transpose(2, 0, 1) for tiles in clip.frames])
    off = np.abs(found.astype(int) - expected)
    assert off.max() <= (3 if height > width else 2)
    assert off.mean() < (0.5 if height > width else 0.02)


# -- what a checkpoint says -----------------------------------------------------------------------------------------


def test_the_released_rules() -> None:
    rules = VideoConfig.from_folder(SMOLVLM2)
    assert (rules.fps, rules.max_frames) == (1, 64)
    assert (rules.frame.longest_edge, rules.frame.tile_size) == (2048, 512), "`size` comes before `video_size`"


def test_a_checkpoint_that_says_nothing_of_videos_has_smolvlm2s() -> None:
    rules = VideoConfig.from_folder(RELEASED)
    assert (rules.fps, rules.max_frames, rules.frame) == (1, 64, ImageConfig.from_folder(RELEASED))


def released(**changes: Any) -> dict[str, Any]:
    return json.loads((SMOLVLM2 / "preprocessor_config.json").read_bytes()) | changes


def test_where_the_rules_stand(tmp_path: Path) -> None:
    """In the order of transformers: processor_config.json, video_preprocessor_config.json, preprocessor_config.json."""

    def write(name: str, values: dict[str, Any]) -> None:
        (tmp_path / name).write_text(json.dumps(values))

    def sampling(fps: float) -> dict[str, Any]:
        return {"fps": fps, "max_frames": 10, "video_size": {"longest_edge": 512}}

    write("preprocessor_config.json", released(video_sampling=sampling(2)))
    assert VideoConfig.from_folder(tmp_path).fps == 2
    write("video_preprocessor_config.json", released(video_sampling=sampling(3)))
    assert VideoConfig.from_folder(tmp_path).fps == 3
    saved = {key: value for key, value in released(fps=4, num_frames=20).items() if key != "video_sampling"}
    write("processor_config.json", {"video_processor": saved})
    assert (VideoConfig.from_folder(tmp_path).fps, VideoConfig.from_folder(tmp_path).max_frames) == (4, 20)
    assert "video_preprocessor_config.json" in TOKENIZER_FILES, "a bundle takes it along"
    write("processor_config.json", {"video_processor": saved | {"fps": 0}})
    with pytest.raises(IntegrityError, match="fps"):
        VideoConfig.from_folder(tmp_path)
