"""`messages=`: conversations as OpenAI and transformers write them."""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import ImageError, RequestError, SmolVLM
from smolvlm_edge.conversation.messages import read_messages

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
        lambda path: {"type": "image_url", "image_url": {"url": path.as_uri(), "detail": "high"}},
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
        ([user({"type": "image", "url": "file://[x"}, QUESTION)], "no file: URL"),
        ([user({"type": "image_url", "image_url": {"url": "a.png", "detail": "best"}}, QUESTION)], "detail"),
        ([user({"type": "image_url", "image_url": {"url": 5}}, QUESTION)], "needs its source"),
        ([user({"type": "image", "image": ["a.png"]}, QUESTION)], "needs its source"),
        ([user({"type": ["text"], "text": "Hi"})], "content part"),
        ([user({"type": "text", "text": 5})], "content part"),
        ([{"role": ["user"], "content": "Hi"}], "role"),
        ([{"role": "user", "content": 5}], "content"),
        ([{"role": "user", "content": {"type": "text"}}], "content"),
        ([{"role": "user", "content": []}], "empty"),
        ([[]], "role"),
        ({"role": "user", "content": "Hi"}, "list of messages"),
        ("Hi", "list of messages"),
        (5, "list of messages"),
        ([user("Hi"), {"role": "assistant", "content": ""}], "go on from"),
        ([user("Hi"), {"role": "assistant", "content": None}], "go on from"),
        ([user("Hi"), {"role": "system", "content": "Be brief."}], "last message"),
        ([{"role": "w" * 100_000, "content": "Hi"}], "www"),
    ],
)
def test_messages_that_make_no_sense(model: SmolVLM, messages: list, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        model.generate(messages=messages)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_damaged_data_url_and_a_missing_file(model: SmolVLM) -> None:
    for url in ("data:image/png;base64,=?", "data:image/png;base64,aGVsbG8=", "file:///nowhere/a.png"):
        with pytest.raises(ImageError):
            model.generate(messages=[user({"type": "image", "url": url}, QUESTION)])


def test_messages_and_a_prompt_are_one_too_many(model: SmolVLM, picture: Path) -> None:
    for images, prompt in (([], QUESTION), (picture, "")):
        with pytest.raises(RequestError, match="not both"):
            model.generate(images, prompt, messages=[user(QUESTION)])


def test_the_roles_that_clients_send(model: SmolVLM) -> None:
    """OpenAI's clients have more of them, names, turns without words, and two of a role in a row."""
    sent = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "Ada", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "12:30"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Please!"},
        {"role": "user", "content": "Well?"},
    ]
    texts = ["Be brief.", "What time is it?", "", "12:30", "No.", "Please!", "Well?"]
    roles = ["system", "user", "assistant", "user", "assistant", "user", "user"]
    meant = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    answers = [model.generate(messages=messages, max_tokens=4).token_ids for messages in (sent, meant)]
    assert answers[0] == answers[1]
    rendered = model.prompt_encoder.render(read_messages(sent).turns)
    assert [rendered.count(text) for text in texts if text] == [1] * 6


def test_every_picture_has_its_own_detail(model: SmolVLM, picture: Path) -> None:
    def tiles(own: str | None, **options: str) -> int:
        part = {"type": "image_url", "image_url": {"url": str(picture), "detail": own}}
        return model.generate(messages=[user(part, QUESTION)], max_tokens=1, **options).timings.tiles

    high = model.generate(picture, QUESTION, max_tokens=1).timings.tiles
    assert high > tiles("auto") >= tiles("low") == 1
    assert tiles("high", detail="low") == tiles(None) == high
    assert tiles(None, detail="low") == 1
    both = [{"type": "image_url", "image_url": {"url": str(picture), "detail": each}} for each in ("low", "high")]
    assert model.generate(messages=[user(*both, QUESTION)], max_tokens=1).timings.tiles == 1 + high


@pytest.mark.parametrize(
    "written",
    [
        base64.encodebytes,
        lambda data: b" " + base64.b64encode(data).replace(b"A", b"A\r\n") + b"\t",
        lambda data: base64.b64encode(data).rstrip(b"="),
        lambda data: base64.b64encode(data).replace(b"+", b"%2B").replace(b"=", b"%3d"),
    ],
)
def test_data_urls_are_read_as_browsers_read_them(model: SmolVLM, picture: Path, written) -> None:
    expected = model.generate(picture, QUESTION, max_tokens=3).token_ids
    for head in ("data:image/png;base64,", "data:;BASE64,", "DATA:image/png; base64,"):
        part = {"type": "image", "url": head + written(picture.read_bytes()).decode()}
        assert model.generate(messages=[user(part, QUESTION)], max_tokens=3).token_ids == expected


@pytest.mark.parametrize("source", ["{path}", "missing.png", "{url}", "FILE:///etc/passwd", ["{path}"], Path("a.png")])
def test_strangers_name_no_files(model: SmolVLM, picture: Path, source) -> None:
    """The answer is the same whether there is such a file."""
    fill = {"path": picture, "url": picture.as_uri()}
    kind = "video" if isinstance(source, list) else "image"
    given = [each.format(**fill) for each in source] if isinstance(source, list) else source
    given = given.format(**fill) if isinstance(given, str) else given
    with pytest.raises(RequestError, match="not read from paths"):
        model.generate(messages=[user({"type": kind, kind: given}, QUESTION)], allow_paths=False)
    data = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    assert model.generate(messages=[user({"type": "image", "url": data}, QUESTION)], max_tokens=1, allow_paths=False)
    with pytest.raises(RequestError, match="not read from paths"):
        model.chat(allow_paths=False).ask([{"type": "image", "path": "missing.png"}, {"type": "text", "text": "?"}])


def test_an_answer_goes_on_from_its_beginning() -> None:
    """Its text is what comes after that, a space at its start too; and what both make is the answer."""
    demo, shapes = SmolVLM.load("demo"), Path(__file__).parent.parent / "examples" / "shapes.png"
    question = user({"type": "image", "image": shapes}, "describe")
    whole = demo.generate(messages=[question], detail="low")
    for shown in (1, 4, 7):
        begun = demo.prompt_encoder.tokenizer.decode(whole.token_ids[:shown]).removeprefix(" ")
        assert whole.text.startswith(begun)
        continued = [question, {"role": "assistant", "content": begun}]
        rest = demo.generate(messages=continued, detail="low")
        assert rest.timings.prompt_tokens == whole.timings.prompt_tokens + shown
        assert rest.token_ids == whole.token_ids[shown:]
        assert begun + rest.text == whole.text
    assert demo.generate(messages=continued, detail="low", choices=[" a", "b"]).text in (" a", "b")
