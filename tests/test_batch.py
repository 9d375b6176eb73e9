"""`SmolVLM.generate_many`: many requests, read ahead, and none of them in the way of the others."""

import gc
import io
import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import Answer, ContextError, ImageError, Request, RequestError, SmolVLM, StoppedError

QUESTION = "What is this?"
PICTURES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)) for seed in range(3)]


@pytest.fixture(scope="module")
def model(tiny_bundle) -> Iterator[SmolVLM]:
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"), threads=1) as model:
        yield model


def test_answers_are_those_of_single_requests_in_order(model: SmolVLM) -> None:
    turn = {"role": "user", "content": [{"type": "image", "image": PICTURES[2]}, {"type": "text", "text": QUESTION}]}
    requests = [
        Request(images=PICTURES[0], prompt=QUESTION),
        Request(images=PICTURES[:2], prompt=QUESTION, max_tokens=3, detail="low"),
        Request(messages=[turn]),
        Request(prompt="Tell me a story."),
    ]
    answers = list(model.generate_many(requests, max_tokens=5))
    assert [len(answer.token_ids) for answer in answers] == [5, 3, 5, 5]
    for request, answer in zip(requests, answers, strict=True):
        assert answer.token_ids == model.generate(**{"max_tokens": 5, **request}).token_ids


def test_what_goes_wrong_stands_in_its_place(model: SmolVLM, tmp_path: Path) -> None:
    longest = model.bundle.model.text.max_position_embeddings
    requests = [
        Request(images=tmp_path / "missing.png", prompt=QUESTION),
        Request(prompt=QUESTION),
        Request(prompt=" "),
        Request(prompt="word " * longest),
        Request(prompt=QUESTION, max_tokens=0),
        Request(prompt=QUESTION, timeout=1e-6),
        Request(prompt=QUESTION),
    ]
    answers = list(model.generate_many(requests, max_tokens=2))
    errors = [ImageError, Answer, RequestError, ContextError, RequestError, StoppedError, Answer]
    assert [type(answer) for answer in answers] == errors
    assert "missing.png does not exist" in str(answers[0])


def test_a_programmers_mistake_is_raised(model: SmolVLM) -> None:
    with pytest.raises(RequestError, match="max_tokens"):
        model.generate_many([], max_tokens=0)
    with pytest.raises(TypeError, match="unknown option 'colour'"):
        model.generate_many([], colour="red")


def test_whatever_a_request_raises_stands_in_its_place(model: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_shown, options, *_args):
        raise MemoryError if options["detail"] == "high" else ZeroDivisionError

    monkeypatch.setattr(model._processor, "_picture", read)
    requests = [
        {"prompt": QUESTION, "colour": "red"},
        "photo.jpg",
        Request(images=PICTURES[0], prompt=QUESTION, detail="high"),
        Request(images=PICTURES[0], prompt=QUESTION, detail="low"),
        Request(prompt=QUESTION),
    ]
    answers = list(model.generate_many(requests, max_tokens=2))
    assert [type(each) for each in answers] == [TypeError, TypeError, MemoryError, ZeroDivisionError, Answer]
    assert "unknown option 'colour'" in str(answers[0])


def test_answers_as_they_are_ready_say_whose_they_are(model: SmolVLM) -> None:
    requests = [Request(prompt=QUESTION, max_tokens=count) for count in (3, 1, 2)]
    answers = list(model.generate_many(requests, ordered=False))
    assert sorted((number, len(answer.token_ids)) for number, answer in answers) == [(0, 3), (1, 1), (2, 2)]


class Watched(os.PathLike):
    """A path that tells when it is looked at."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, threading.Event()

    def __fspath__(self) -> str:
        self.seen.set()
        return str(self.path)


def test_the_next_picture_is_read_while_the_model_works(model: SmolVLM, tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "picture.png")
    pictures = [Watched(tmp_path / "picture.png") for _ in range(3)]
    seen: list[list[bool]] = []

    def on_prefill(*_: int) -> None:
        if not seen:
            assert pictures[1].seen.wait(60)
            seen.append([picture.seen.is_set() for picture in pictures])

    requests = [Request(images=picture, prompt=QUESTION) for picture in pictures]
    answers = list(model.generate_many(requests, max_tokens=2, on_prefill=on_prefill))
    assert seen == [[True, True, False]], "one ahead, and not all of them"
    assert len({answer.token_ids for answer in answers}) == 1


def test_requests_may_have_no_end_and_who_stops_reading_frees_the_model(model: SmolVLM) -> None:
    taken = count()
    answers = model.generate_many((Request(prompt=QUESTION) for _ in taken), max_tokens=2)
    assert [len(next(answers).token_ids) for _ in range(3)] == [2, 2, 2]
    answers.close()
    assert next(taken) <= 5
    assert model._driver.callers == []
    assert not [thread for thread in threading.enumerate() if "pictures" in thread.name]


def test_cancel_ends_them_all_or_the_one_that_it_belongs_to(model: SmolVLM) -> None:
    cancel = threading.Event()
    answers = model.generate_many((Request(prompt=QUESTION) for _ in range(9)), max_tokens=2, cancel=cancel)
    assert isinstance(next(answers), Answer)
    cancel.set()
    with pytest.raises(StoppedError, match="cancelled"):
        next(answers)
    kinds = [type(answer) for answer in model.generate_many([{"cancel": cancel, "prompt": "a"}, {"prompt": "b"}])]
    assert kinds == [StoppedError, Answer]


def test_other_threads_get_their_turns_in_between(model: SmolVLM) -> None:
    answers = model.generate_many((Request(prompt=QUESTION) for _ in range(3)), max_tokens=2)
    expected = next(answers).token_ids
    other = []
    thread = threading.Thread(target=lambda: other.append(model.generate(PICTURES[0], QUESTION, max_tokens=2)))
    thread.start()
    thread.join(60)
    assert len(other) == 1
    assert [answer.token_ids for answer in answers] == [expected] * 2


def test_failures_that_are_kept_hold_no_pictures(model: SmolVLM) -> None:
    file = io.BytesIO()
    PICTURES[0].resize((900, 900)).save(file, "PNG")
    cut_off = file.getvalue()[: len(file.getvalue()) // 2]
    gc.collect()
    before = sum(isinstance(each, Image.Image) for each in gc.get_objects())
    failures = list(model.generate_many([{"images": cut_off, "prompt": QUESTION}] * 5))
    assert {type(failure) for failure in failures} == {ImageError}
    gc.collect()
    assert sum(isinstance(each, Image.Image) for each in gc.get_objects()) == before
