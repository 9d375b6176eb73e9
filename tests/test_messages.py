"""`messages=`: conversations as OpenAI and transformers write them."""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import ImageError, RequestError, SmolVLM

QUESTION = "What is this?"


@pytest.fixture(scope="module")
def model(tiny_bundle) -> SmolVLM:
    return SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a picture.png")
    return tmp_path / "a picture.png"


def user(*parts: object) -> dict:
    return {
        "role": "user",
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts],
    }


@pytest.mark.parametrize(
    "part",
    [
        lambda path: {"type": "image", "image": path},
        lambda path: {"type": "image", "image": Image.open(path)},
        lambda path: {"type": "image", "image": path.read_bytes()},
        lambda path: {"type": "image", "path": str(path)},
        lambda path: {"type": "image", "url": path.as_uri()},
        lambda path: {"type": "image_url", "image_url": {"url": path.as_uri(), "detail": "auto"}},
        lambda path: {"type": "image_url", "image_url": str(path)},
        lambda path: {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()},
        },
    ],
)
def test_every_way_to_give_a_picture_is_the_same_picture(model: SmolVLM, picture: Path, part) -> None:
    expected = model.generate(picture, QUESTION, max_tokens=6)
    answer = model.generate(messages=[user(part(picture), QUESTION)], max_tokens=6)
    assert answer.token_ids == expected.token_ids
    assert answer.timings.prompt_tokens == expected.timings.prompt_tokens


def test_pictures_stand_where_they_are_in_any_turn(model: SmolVLM, picture: Path) -> None:
    """What the template makes of it is the encoder's business; here it is told what stands where."""
    image, place = {"type": "image", "image": picture}, {"type": "image"}
    messages = [
        {"role": "system", "content": "Be brief."},
        user("Compare ", image, " with"),
        {"role": "assistant", "content": "With what?"},
        user(image, "this."),
    ]
    turns = [messages[0], user("Compare ", place, " with"), messages[2], user(place, "this.")]
    tiles = model.generate(picture, QUESTION, max_tokens=1, longest_edge=64).timings.tiles
    expected = model.prompt_encoder.encode(turns, [(0, 0), (0, 0)])
    timings = model.generate(messages=messages, max_tokens=1, longest_edge=64).timings
    assert (timings.tiles, timings.prompt_tokens) == (2 * tiles, len(expected))


def test_frames_may_be_given_as_a_video(model: SmolVLM, picture: Path) -> None:
    video = {"type": "video", "video": [picture, picture]}
    answer = model.generate(messages=[user(video, "What happens?")], max_tokens=2)
    assert len(answer.videos[0].times) == answer.timings.tiles == 2


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "last message"),
        ([{"role": "assistant", "content": "Yes?"}], "last message"),
        ([user("  ")], "empty"),
        ([{"role": "wizard", "content": "Hi"}], "wizard"),
        ([{"content": "Hi"}], "role"),
        (["Hi"], "role"),
        ([{"role": "user", "content": None}], "content"),
        ([user({"type": "audio", "audio": b""})], "audio"),
        ([user({"type": "image"}, QUESTION)], "needs its source"),
        ([user({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, QUESTION)], "not fetched"),
        ([user({"type": "image", "image": "HTTP://example.org/a.png"}, QUESTION)], "not fetched"),
        ([user({"type": "image", "url": "file://server/share/a.png"}, QUESTION)], "another machine"),
    ],
)
def test_messages_that_make_no_sense(model: SmolVLM, messages: list, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        model.generate(messages=messages)
    assert "\n" not in str(caught.value)


def test_a_damaged_data_url_and_a_missing_file(model: SmolVLM) -> None:
    for url in ("data:image/png;base64,=?", "data:image/png;base64,aGVsbG8=", "file:///nowhere/a.png"):
        with pytest.raises(ImageError):
            model.generate(messages=[user({"type": "image", "url": url}, QUESTION)])


def test_messages_and_a_prompt_are_one_too_many(model: SmolVLM, picture: Path) -> None:
    for images, prompt in (([], QUESTION), (picture, "")):
        with pytest.raises(RequestError, match="not both"):
            model.generate(images, prompt, messages=[user(QUESTION)])
