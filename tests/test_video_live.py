"""The rules for videos through transformers, live. Its video processor as a whole needs torchvision: see
make_video_goldens.py, whose goldens tests/test_video_rules.py compares with."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import draw

pytest.importorskip("transformers")  # the [parity] extra
pytest.importorskip("torch")

from make_video_goldens import CONVERSATIONS, SMOLVLM2, reference_ids, reference_sample, unpack_smolvlm2
from transformers import SmolVLMImageProcessorPil

from smolvlm_edge import Timeline, Video
from smolvlm_edge.bundle.config import ModelConfig, VideoConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.pictures.video import read_clip
from smolvlm_edge.pictures.video.frames import sample_frames
from smolvlm_edge.pictures.video.timeline import MAX_FRAMES, in_words

pytestmark = pytest.mark.parity


@given(st.integers(1, 500_000), st.floats(0.05, 240), st.floats(0.01, 60), st.integers(1, 200))
def test_the_same_frames_of_any_video(count: int, frame_rate: float, fps: float, max_frames: int) -> None:
    found = sample_frames(count, frame_rate, fps=fps, max_frames=max_frames)
    assert found == reference_sample(count, frame_rate, fps, max_frames)


def test_numbers_in_words() -> None:
    num2words = pytest.importorskip("num2words").num2words
    assert [in_words(number) for number in range(MAX_FRAMES + 1)] == [num2words(n) for n in range(MAX_FRAMES + 1)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder = unpack_smolvlm2(tmp_path_factory.mktemp("smolvlm2"))
    return PromptEncoder(folder, ModelConfig.from_folder(folder))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_token_ids_are_those_of_transformers(name: str, encoder: PromptEncoder) -> None:
    messages, footage = CONVERSATIONS[name]
    videos = [
        Timeline(each.count / each.frame_rate, tuple(number / each.frame_rate for number in each.numbers))
        for each in footage
    ]
    assert encoder.encode(messages, [], videos).tolist() == reference_ids(CONVERSATIONS[name])


@pytest.mark.parametrize("size", [(640, 360), (90, 160), (33, 57), (100, 100)])
def test_frames_are_those_of_smolvlms_image_processor(size: tuple[int, int]) -> None:
    """The video processor states that it does what the image processor does without splitting."""
    rules = VideoConfig.from_folder(SMOLVLM2)
    rules = replace(rules, frame=replace(rules.frame, longest_edge=256, tile_size=64))
    picture = draw(*size, 3)
    output = SmolVLMImageProcessorPil.from_pretrained(SMOLVLM2)(
        picture, size={"longest_edge": 256}, max_image_size={"longest_edge": 64}, do_image_splitting=False
    )
    (tiles,) = read_clip(Video([picture]), rules).frames
    np.testing.assert_array_equal(np.concatenate(list(tiles.pixel_values())), output["pixel_values"][0])
