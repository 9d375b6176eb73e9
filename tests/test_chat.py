"""`SmolVLM.chat`: several turns, what is computed once, and that nobody can tell."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import ContextError, ImageError, RequestError, SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.generation.decoding import prefill
from smolvlm_edge.generation.network import FEATURE_BYTES
from smolvlm_edge.generation.slots import Slots
from smolvlm_edge.graphs import Decoder
from smolvlm_edge.graphs.engines import open_engine

ROOT = Path(__file__).parent.parent
STORY = "Once upon a time there was a picture that nobody had seen. " * 6
ENGINES = [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8")]
TARGETS = {"onnxruntime": "onnx", "openvino": "openvino"}
CHUNK = 128


def picture(seed: int) -> Image.Image:
    """All of one size: their prompts have the same token ids."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8))


@pytest.fixture(params=ENGINES, ids="-".join)
def model(request: pytest.FixtureRequest, tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> SmolVLM:
    monkeypatch.setattr("smolvlm_edge.graphs.openvino.ONE_PASS", CHUNK)  # in bf16 it would read these prompts at once
    engine, quant = request.param
    return SmolVLM.load(tiny_bundle("tiny-idefics3", quant, TARGETS[engine]), threads=1)


@pytest.fixture(scope="module")
def plain(tiny_bundle) -> SmolVLM:
    return SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"), threads=1)


def fresh(model: SmolVLM, messages: list, **options) -> tuple[int, ...]:
    """The answer of a model that remembers nothing."""
    model.close()
    return model.generate(messages=messages, **options).token_ids


def question(text: str, *images: Image.Image) -> dict:
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


# -- the same answers -------------------------------------------------------------------------------


def test_a_turn_is_answered_as_a_fresh_prompt_of_the_same_conversation(model: SmolVLM) -> None:
    chat, encoded = model.chat("Be brief.", max_tokens=10), []
    turns = [(STORY, [picture(1)]), ("What is it?", []), ("And this?", [picture(2)]), ("Why?", [])]
    answers, asked = [], []
    for text, images in turns:
        asked.append([*chat.messages, question(text, *images)])
        encoded.append(0)
        answers.append(chat.ask(text, images, on_tile=lambda *_: encoded.__setitem__(-1, encoded[-1] + 1)))
    assert encoded[0] == encoded[2] > 1
    assert encoded[1] == encoded[3] == 0, "pictures of earlier turns are not encoded again"
    for before, answer in pairwise(answers):
        shared = before.timings.prompt_tokens // CHUNK * CHUNK
        assert answer.timings.cached_tokens >= shared >= CHUNK
    for messages, answer in zip(asked, answers, strict=True):
        assert fresh(model, messages, max_tokens=10) == answer.token_ids


@pytest.mark.parametrize("system", ["Be brief.", None])
def test_a_full_conversation_loses_its_oldest_turns(plain: SmolVLM, system: str | None, caplog) -> None:
    """But never the system's text; with on_full='stop' it says what to do."""
    context = plain.bundle.model.text.max_position_embeddings
    long = "word " * (context // 12)
    chat, asked = plain.chat(system, on_full="drop", max_tokens=4), []
    for number, images in enumerate([picture(1), *[[]] * 5]):
        chat.ask(f"{number} {long}", images)
        asked.append(chat.messages[:-1])
    assert "oldest turn" in caplog.text
    assert [message["content"] for message in chat.messages if message["role"] == "system"] == [system] * bool(system)
    kept = [message["content"][-1]["text"].split()[0] for message in chat.messages if message["role"] == "user"]
    assert kept == [str(number) for number in range(6)][-len(kept) :]
    assert 1 <= len(kept) < 6
    assert fresh(plain, asked[-1], max_tokens=4) == chat_answer(plain, asked[-1])
    stopping = plain.chat(system, max_tokens=4)
    for _ in range(len(kept) - 1):
        stopping.ask(long)
    with pytest.raises(ContextError, match="drop"):
        stopping.ask("word " * (context - context // 6))
    before = chat.messages
    with pytest.raises(ContextError):
        chat.ask("word " * context)
    assert chat.messages == before, "a question that never fits leaves no trace"


def chat_answer(model: SmolVLM, messages: list) -> tuple[int, ...]:
    return model.generate(messages=messages, max_tokens=4).token_ids


def test_an_answer_that_spells_the_image_token_does_not_end_the_chat(plain: SmolVLM) -> None:
    chat = plain.chat(max_tokens=40)
    assert chat.ask("Which tag?", picture(1), choices=["an <image> tag"]).text == "an <image> tag"
    assert len(chat.ask("Why?", max_tokens=3).token_ids) == 3


def test_questions_in_between_change_nothing(model: SmolVLM) -> None:
    """Least of all one with the same words about another picture of the same size."""
    chat, answers, asked = model.chat(max_tokens=10), [], []
    for text, images in [(STORY, [picture(1)]), ("What is it?", []), ("Why?", [])]:
        asked.append([*chat.messages, question(text, *images)])
        answers.append(chat.ask(text, images).token_ids)
        other = model.generate(
            messages=[question(STORY, picture(3)), *chat.messages[1:], question("Why?")], max_tokens=4
        )
        assert len(other.token_ids) == 4
    assert [fresh(model, messages, max_tokens=10) for messages in asked] == answers


def test_another_picture_in_the_same_place_is_another_prompt(model: SmolVLM) -> None:
    first, second = ([question("Look: ", picture(seed)), question(STORY)] for seed in (1, 2))
    first[0]["role"] = second[0]["role"] = "user"
    expected = fresh(model, second, max_tokens=6)
    model.close()
    model.generate(messages=first, max_tokens=6)
    answer = model.generate(messages=second, max_tokens=6)
    assert answer.timings.cached_tokens == 0, "they differ in the first tile"
    assert answer.token_ids == expected
    assert model.generate(messages=second, max_tokens=6).timings.cached_tokens >= CHUNK


def decoder_of(model: SmolVLM) -> Decoder:
    (target,) = model.bundle.targets
    engine = next(name for name, each in TARGETS.items() if each == target)
    return open_engine(engine, threads=1).decoder(Bundle.open(model.bundle.folder).graph_path("decoder", target))


def test_logits_are_the_same_to_the_last_bit_whatever_was_kept(model: SmolVLM) -> None:
    random, hidden = np.random.default_rng(0), model.bundle.model.text.hidden_size
    table = random.standard_normal((100, hidden), np.float32)
    slots, alone = Slots(decoder_of(model), lambda ids: table[ids]), decoder_of(model)
    prompt = random.integers(0, 100, 3 * CHUNK + 20)
    changed = prompt.copy()
    changed[CHUNK + 7] += 1
    asked = [
        (prompt[:200], 0),
        (prompt, 1),
        (prompt, 3),
        (changed, 1),
        (prompt[: 2 * CHUNK], 1),
        (prompt[:5], 0),
    ]
    for keys, chunks in asked:
        slot = slots.take(keys, room=500)
        assert slots.catch_up(slot, keys) == slots.decoder.length == chunks * CHUNK
        for start in range(chunks * CHUNK, len(keys), CHUNK):
            end = min(start + CHUNK, len(keys))
            logits = slots.append(slot, keys[:end], table[keys[start:end]]).copy()
        slots.step([3], [slot])  # an answer
        slots.give_back(slot)
        alone.truncate(0)
        np.testing.assert_array_equal(logits, prefill(alone, table[keys]))
    slots.decoder.close()
    alone.close()


def test_memory_low_keeps_features_and_answers(tiny_bundle, plain: SmolVLM) -> None:
    frugal = SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"), threads=1, memory="low")
    seen: list[int] = []
    chats = [model.chat(max_tokens=8) for model in (plain, frugal)]
    for text, images in [(STORY, [picture(1)]), ("And?", []), ("This?", [picture(2)])]:
        answers = [chat.ask(text, images, on_tile=lambda done, total: seen.append(total)) for chat in chats]
        assert answers[0].token_ids == answers[1].token_ids
        assert answers[0].timings.tiles == answers[1].timings.tiles
    assert len(set(seen)) == 1


def test_a_picture_that_was_shown_before_is_not_encoded_again(model: SmolVLM, tmp_path: Path) -> None:
    """Whatever it comes as, also with others in between and after another text; and the answers are the same."""
    seen, other = picture(1), picture(2)
    seen.save(tmp_path / "seen.png")
    stored = (tmp_path / "seen.png").read_bytes()
    first = model.generate(seen, "What is it?", max_tokens=6)
    assert first.timings.encoded_tiles == first.timings.tiles > 1
    assert model.generate(other, "And this?", max_tokens=2).timings.encoded_tiles == first.timings.tiles
    asked = [
        (tmp_path / "seen.png", "What is it?"),
        (stored, STORY),
        (np.asarray(seen), "Which colour?"),
        ([other, stored, seen], "What changed?"),
    ]
    answers = [model.generate(images, text, max_tokens=6) for images, text in asked]
    assert [answer.timings.encoded_tiles for answer in answers] == [0, 0, 0, 0]
    assert answers[0].token_ids == first.token_ids
    for (images, text), answer in zip(asked, answers, strict=True):
        model.close()
        assert model.generate(images, text, max_tokens=6).token_ids == answer.token_ids


def test_the_pictures_of_longest_ago_are_forgotten_first(plain: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(*seeds: int) -> int:
        return plain.generate([picture(seed) for seed in seeds], "What?", max_tokens=1).timings.encoded_tiles

    plain.close()
    each = encoded(1)
    size = sum(rows.nbytes for rows in plain._network._features.values())
    monkeypatch.setitem(FEATURE_BYTES, "balanced", 2 * size)
    assert [encoded(2), encoded(3), encoded(1), encoded(4)] == [each, each, 0, each]
    assert encoded(2) == each, "1 was asked for after 2"
    assert [encoded(1), encoded(4)] == [0, 0]
    assert encoded(1, 2, 4, 5) == each, "a prompt has all of its pictures, whatever the bound"
    assert encoded(1, 2, 4, 5) == 0


def test_the_demonstration_model_remembers_what_it_was_shown() -> None:
    chat = SmolVLM.load("demo").chat()
    assert str(chat.ask("What color is the star?", ROOT / "examples" / "shapes.png")) == "The star is blue."
    again = chat.ask("What color is the star?")
    assert fresh(SmolVLM.load("demo"), [*chat.messages[:-2], chat.messages[-2]]) == again.token_ids
    assert again.timings.vision_ms == 0


# -- the object -------------------------------------------------------------------------------------


def test_history_is_messages(plain: SmolVLM) -> None:
    chat = plain.chat("Be brief.", max_tokens=3)
    first = chat.ask("Hello", picture(1))
    chat.system = None
    parts = [{"type": "text", "text": "Compare "}, {"type": "image", "image": picture(2)}]
    second = chat.ask(parts)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in chat.messages[1::2]] == [first.text, second.text]
    assert chat.messages[2]["content"][1]["image"] is parts[1]["image"]
    chat.system = "Be loud."
    assert chat.messages[0] == {"role": "system", "content": "Be loud."}
    chat.clear()
    assert len(chat.messages) == 1
    assert chat.ask("Hello").token_ids == fresh(plain, [*chat.messages[:1], question("Hello")], max_tokens=3)


def test_a_picture_is_read_once(plain: SmolVLM, tmp_path: Path) -> None:
    """As when a program shows a temporary file."""
    picture(1).save(tmp_path / "a.png")
    chat = plain.chat(max_tokens=2)
    tiles = chat.ask("What?", tmp_path / "a.png").timings.tiles
    (tmp_path / "a.png").unlink()
    assert chat.ask("Why?").timings.tiles == tiles


def test_options_of_a_turn_come_before_those_of_the_chat(plain: SmolVLM) -> None:
    chat = plain.chat(max_tokens=2)
    assert len(chat.ask("Hello").token_ids) == 2
    assert len(chat.ask("Hello", max_tokens=3).token_ids) == 3
    with pytest.raises(RequestError, match="max_tokens"):
        plain.chat(max_tokens=0)
    with pytest.raises(RequestError, match="low, auto, high, not 'middling'"):
        chat.ask("Hello", detail="middling")
    tiles = [chat.ask("Hello", picture(1), detail=detail).timings.tiles for detail in ("high", "low")]
    assert tiles[0] > 2
    assert tiles[1] == tiles[0] + 1, "the earlier picture stays as it was read"


def test_an_answer_that_is_ended_stays_as_far_as_it_came(plain: SmolVLM) -> None:
    chat = plain.chat(max_tokens=20)
    stream = chat.stream("Tell me a story.")
    said = "".join(next(stream).text for _ in range(5))
    stream.close()
    assert [message["content"] for message in chat.messages[1:]] == [said]
    after = chat.ask("Go on.")
    assert after.token_ids == fresh(plain, chat.messages[:-1], max_tokens=20)


def test_a_question_that_fails_leaves_no_trace(plain: SmolVLM) -> None:
    chat = plain.chat(max_tokens=4)
    chat.ask("Hello")
    before = chat.messages
    with pytest.raises(ImageError):
        chat.ask("What?", [picture(1), "missing.png"])
    with pytest.raises(RequestError, match="empty"):
        chat.ask(" ")
    with pytest.raises(RequestError, match="context"):
        chat.ask("word " * 3000)
    assert chat.messages == before
    assert chat.ask("And?").token_ids == fresh(plain, [*before, question("And?")], max_tokens=4)


def test_one_turn_at_a_time(plain: SmolVLM) -> None:
    chat = plain.chat(max_tokens=4)
    stream = chat.stream("Hello")
    next(stream)
    with pytest.raises(RequestError, match="still answering"):
        chat.ask("And?")
    stream.close()
    assert chat.ask("And?").timings.generated_tokens == 4
