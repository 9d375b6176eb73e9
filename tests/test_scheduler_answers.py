"""Many at once on real graphs: in fp32 every answer is what it is alone, whatever else is answered."""

import gc
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_memory import resident_bytes
from test_threads import wait_for

from smolvlm_edge import Answer, EngineError, RequestError, SmolVLM, StoppedError
from smolvlm_edge.generation.driving import MOST_UNREAD, READ_AHEAD
from smolvlm_edge.generation.width import bytes_per_position
from smolvlm_edge.graphs import Decoder
from smolvlm_edge.graphs.engines import open_engine

QUESTION, STORY = "What is this?", "Tell me a story."
LONG = "Once upon a time there was a picture that nobody had seen. " * 10
PICTURES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)) for seed in range(6)]


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


@pytest.fixture(scope="module")
def alone(bundle: Path) -> Iterator[SmolVLM]:
    with SmolVLM.load(bundle, threads=1) as model:
        yield model


@pytest.fixture
def load(bundle: Path) -> Iterator[Callable[..., SmolVLM]]:
    opened: list[SmolVLM] = []

    def load(**options: object) -> SmolVLM:
        opened.append(SmolVLM.load(bundle, threads=1, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield load
    for model in opened:
        model.close()


def mixed(count: int, seed: int) -> list[dict]:
    chance = random.Random(seed)
    wishes: list[dict] = [
        {"temperature": 0.8, "seed": 3},
        {"repetition_penalty": 1.3},
        {"choices": ["a circle", "a star"]},
        {"stop": ["e"]},
        {"top_logprobs": 2},
        {},
        {},
    ]
    return [
        {
            "images": chance.sample(PICTURES, chance.choice([0, 1, 1, 2])),
            "prompt": chance.choice([QUESTION, STORY, LONG]),
            "max_tokens": chance.randrange(1, 24),
            "detail": chance.choice(["low", "high"]),
            **chance.choice(wishes),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("width", [2, 5, 16])
def test_every_answer_is_what_it_is_alone(alone: SmolVLM, load: Callable[..., SmolVLM], width: int) -> None:
    requests = mixed(40, seed=width)
    for request in requests:  # a limit that cuts a choice off is an error, which is another matter
        if "choices" in request:
            request["max_tokens"] = 24
    answers = list(load(parallel=width).generate_many(requests))  # type: ignore[arg-type]
    for request, answer in zip(requests, answers, strict=True):
        expected = alone.generate(**request)
        assert isinstance(answer, Answer), answer
        assert (answer.text, answer.token_ids, answer.finish_reason) == (
            expected.text,
            expected.token_ids,
            expected.finish_reason,
        )
    assert max(answer.timings.batch_size for answer in answers if isinstance(answer, Answer)) > min(width, 3) / 2


def decoder_of(bundle: Path, slots: int) -> Decoder:
    return open_engine("onnxruntime", threads=1).decoder(bundle / "decoder.onnx", slots)


def test_slots_of_different_lengths_are_each_a_sequence_of_its_own(bundle: Path) -> None:
    """Gaps between them, slots that are filled in between, and a cache that grows change nothing."""
    many, one = decoder_of(bundle, 5), decoder_of(bundle, 1)
    embeds = np.random.default_rng(0).standard_normal((5, 300, 64), np.float32)
    lengths = {0: 100, 1: 3, 3: 37, 4: 128}
    for slot, length in lengths.items():
        many(embeds[slot, :length], slot=slot)
    many(embeds[2, :50], slot=2)
    got: dict[int, list[np.ndarray]] = {slot: [] for slot in range(5)}
    for step in range(30):
        slots = [[0, 3, 4], [3], [0, 1, 3, 4]][step % 3]
        rows = many.step(np.stack([embeds[slot, lengths[slot]] for slot in slots]), slots)
        for slot, row in zip(slots, rows, strict=True):
            got[slot].append(row.copy())
            lengths[slot] += 1
    many(embeds[2, 50:250], slot=2)  # the cache grows
    many.copy(2, 1, 0, 200)
    got[1] = [many.step(embeds[1, 299:], [1])[0].copy()]
    for slot, start in {0: 100, 3: 37, 4: 128}.items():
        one.truncate(0)
        one(embeds[slot, :start])
        for position, row in enumerate(got[slot]):
            np.testing.assert_allclose(row, one(embeds[slot, start + position][None])[0], atol=1e-4)
    one.truncate(0)
    one(embeds[2, :50])
    one(embeds[2, 50:250])
    one.truncate(200)
    np.testing.assert_allclose(got[1][0], one(embeds[1, 299:])[0], atol=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux")
def test_a_slot_that_is_released_takes_no_memory(bundle: Path) -> None:
    decoder = decoder_of(bundle, 8)
    decoder.reserve(1 << 16)
    caches = [cache.values for cache in decoder._caches.values()]  # type: ignore[attr-defined]
    size = sum(cache[0].nbytes for cache in caches)
    assert size > 4 << 20
    before = resident_bytes()
    for cache in caches:
        cache[:4] = 1
    assert resident_bytes() - before > 3.9 * size
    decoder._lengths[:4] = [1 << 16, 1 << 15, 0, 0]  # type: ignore[attr-defined]
    for slot in range(4):
        decoder.release(slot)
    assert resident_bytes() - before < 1.6 * size
    assert all(
        (cache[0] == 1).all() and (cache[1, :, : 1 << 15] == 1).all() and not cache[2:].any() for cache in caches
    )


def test_one_at_a_time_gives_the_bits_of_a_decoder_alone(tiny_bundle) -> None:
    """Also in int4: what was answered before does not show in the numbers."""
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "int4"), threads=1) as model:
        wish: dict = {"max_tokens": 12, "top_logprobs": 5}
        expected = model.generate(PICTURES[0], QUESTION, **wish)
        model.generate(PICTURES[1], STORY, **wish)
        assert model.generate(PICTURES[0], QUESTION, **wish).logprobs == expected.logprobs
        assert expected.timings.batch_size == 1


def test_a_hundred_questions_about_one_picture_encode_it_once(load: Callable[..., SmolVLM]) -> None:
    model = load(parallel=8)
    requests = [{"images": PICTURES[0], "prompt": f"{LONG}{number}?", "max_tokens": 8} for number in range(100)]
    answers = [answer for answer in model.generate_many(requests) if isinstance(answer, Answer)]  # type: ignore[arg-type]
    assert len(answers) == 100
    timings = [answer.timings for answer in answers]
    assert sum(each.encoded_tiles for each in timings) == timings[0].tiles
    shared = timings[0].prompt_tokens // 128 * 128
    assert shared >= 128
    assert timings[0].prompt_tokens - shared > 10, "they differ in the last few tokens alone"
    computed = sum(each.prompt_tokens - each.cached_tokens for each in timings)
    assert computed == shared + sum(each.prompt_tokens - shared for each in timings)


def test_of_many_at_once_few_hold_pictures(load: Callable[..., SmolVLM], monkeypatch) -> None:
    """64 pictures in full detail would take 650 MB before the first of them is encoded."""
    model, held, counts = load(parallel=40), [], []
    read, encode = model._processor.read, model._network.encode

    def counted(*arguments: Any) -> Any:
        pictures = read(*arguments)
        held.extend(weakref.ref(picture.squares[0]) for picture in pictures)
        counts.append(sum(each() is not None for each in held))
        return pictures

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)  # all who may read do it meanwhile
        return encode(*arguments)

    monkeypatch.setattr(model._processor, "read", counted)
    monkeypatch.setattr(model._network, "encode", slow)
    pictures = [PICTURES[0].point(lambda value, more=number: value // 2 + more) for number in range(40)]
    requests = [{"images": picture, "prompt": QUESTION, "max_tokens": 2, "detail": "low"} for picture in pictures]
    answers = list(model.generate_many(requests))  # type: ignore[arg-type]
    assert all(isinstance(answer, Answer) for answer in answers)
    assert READ_AHEAD < max(counts) <= MOST_UNREAD + 1, "one of them may be in use while its answer lets go of it"


def test_numbers_of_sequences_share_the_room_for_logits(bundle: Path) -> None:
    decoder = decoder_of(bundle, 6)
    embeds = np.random.default_rng(0).standard_normal((6, 64), np.float32)
    rows = [decoder.step(embeds[:count], range(count)) for count in (1, 6, 3)]
    assert all(np.shares_memory(rows[1], each) for each in rows)


def test_streams_side_by_side_in_one_thread(alone: SmolVLM, load: Callable[..., SmolVLM]) -> None:
    """As many as there are slots; one more would wait for itself."""
    model = load(parallel=2)
    expected = [alone.generate(picture, QUESTION, max_tokens=40).token_ids for picture in PICTURES[:2]]
    streams = [model.stream(picture, QUESTION, max_tokens=40) for picture in PICTURES[:2]]
    got = [[next(stream).token_id for _ in range(3)] for stream in streams]
    with pytest.raises(RequestError, match="still reading"):
        next(model.stream([], STORY))
    failed = list(model.generate_many([{"prompt": STORY}] * 3))
    assert [type(each) for each in failed] == [RequestError] * 3
    for tokens, stream in zip(got, streams, strict=True):
        tokens += [chunk.token_id for chunk in stream]
    assert [tuple(tokens) for tokens in got] == expected
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


def test_a_thread_that_holds_all_slots_is_told_while_strangers_wait(load: Callable[..., SmolVLM]) -> None:
    model = load(parallel=2)
    streams = [model.stream([], STORY, max_tokens=60) for _ in range(2)]
    for stream in streams:
        next(stream)
    with ThreadPoolExecutor(2) as pool:
        strangers = [pool.submit(model.generate, [], STORY, max_tokens=2) for _ in range(2)]
        wait_for(lambda: len(model._driver.callers) == 4)
        with pytest.raises(RequestError, match="still reading"):
            next(model.stream([], STORY, timeout=60))
        for stream in streams:
            stream.close()
        assert all(stranger.result(60).timings.generated_tokens == 2 for stranger in strangers)


def test_places_for_pictures_that_wait_for_a_thread_do_not_stop_it(load: Callable[..., SmolVLM]) -> None:
    """It holds the budget for which they wait, and would wait for them if it had to wait for a place."""
    model = load(parallel=MOST_UNREAD + 2, cache_bytes=bytes_per_position(load().bundle.model.text) * 700)
    held = model.stream([], STORY, max_tokens=500)
    next(held)
    with ThreadPoolExecutor(MOST_UNREAD) as pool:
        ask = {"max_tokens": 300, "detail": "low", "timeout": 60}
        strangers = [pool.submit(model.generate, PICTURES[0], QUESTION, **ask) for _ in range(MOST_UNREAD)]
        wait_for(lambda: len(model._driver.scheduler._waiting) == MOST_UNREAD)
        with pytest.raises(RequestError, match="still reading"):
            next(model.stream(PICTURES[1], QUESTION, **ask))
        held.close()
        assert all(isinstance(stranger.result(60), Answer) for stranger in strangers)


def test_a_slow_reader_holds_up_nobody(alone: SmolVLM, load: Callable[..., SmolVLM]) -> None:
    model = load(parallel=2)
    slow = model.stream([], STORY, max_tokens=60)
    begun = [next(slow).token_id]
    with ThreadPoolExecutor(1) as pool:
        for picture in PICTURES:
            answer = pool.submit(model.generate, picture, QUESTION, max_tokens=30).result(60)
            assert answer.token_ids == alone.generate(picture, QUESTION, max_tokens=30).token_ids
    begun += [chunk.token_id for chunk in slow]
    assert tuple(begun) == alone.generate([], STORY, max_tokens=60).token_ids


def test_a_budget_lets_wait_and_refuses(alone: SmolVLM, load: Callable[..., SmolVLM]) -> None:
    text = alone.bundle.model.text
    size = text.num_hidden_layers * 2 * text.num_key_value_heads * text.head_dim * 4
    model = load(parallel=4, cache_bytes=size * 960)
    answers = list(model.generate_many([{"prompt": LONG, "max_tokens": 9}] * 5 + [{"prompt": LONG, "max_tokens": 700}]))
    expected = alone.generate([], LONG, max_tokens=9).token_ids
    assert [answer.token_ids for answer in answers[:5] if isinstance(answer, Answer)] == [expected] * 5
    assert isinstance(answers[5], RequestError)
    assert "cache_bytes" in str(answers[5])
    with pytest.raises(RequestError, match="cache_bytes"):
        load(parallel=2, cache_bytes=0)


def test_what_makes_no_sense_is_refused(load: Callable[..., SmolVLM]) -> None:
    for wrong in (0, -1, 1.5, "many", 257):
        with pytest.raises(RequestError, match="parallel must be auto or a number"):
            load(parallel=wrong)
    with pytest.raises(RequestError, match="memory low"):
        load(parallel=2, memory="low")
    assert load(parallel="auto", memory="low").width.count == 1
    assert load(parallel="auto").width.count >= 1


def test_busy_raise_refuses_when_all_slots_are_taken(load: Callable[..., SmolVLM]) -> None:
    model = load(parallel=2, busy="raise")
    streams = [model.stream([], STORY) for _ in range(2)]
    for stream in streams:
        next(stream)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RequestError, match="somebody else"):
            pool.submit(model.generate, [], STORY).result(60)
        streams[0].close()
        assert pool.submit(model.generate, [], STORY, max_tokens=2).result(60).timings.generated_tokens == 2


def test_closed_in_mid_air_all_end_and_the_next_question_opens_again(load: Callable[..., SmolVLM]) -> None:
    model = load(parallel=3)
    expected = model.generate(PICTURES[0], QUESTION, max_tokens=5).token_ids
    streams = [model.stream([], STORY) for _ in range(3)]
    for stream in streams:
        next(stream)
    model.close()
    for stream in streams:
        with pytest.raises(EngineError, match="closed while it was answering"):
            list(stream)
    assert model.generate(PICTURES[0], QUESTION, max_tokens=5).token_ids == expected


def test_cancelling_one_of_several(alone: SmolVLM, load: Callable[..., SmolVLM]) -> None:
    model, cancel = load(parallel=3), threading.Event()
    streams = [model.stream([], STORY, max_tokens=30, cancel=cancel), model.stream([], STORY, max_tokens=30)]
    tokens = [[next(stream).token_id for _ in range(2)] for stream in streams]
    cancel.set()
    tokens[1] += [chunk.token_id for chunk in streams[1]]
    with pytest.raises(StoppedError):
        list(streams[0])
    assert tuple(tokens[1]) == alone.generate([], STORY, max_tokens=30).token_ids
    assert model._driver.callers == []


def test_an_openvino_decoder_takes_one_at_a_time(tiny_bundle) -> None:
    pytest.importorskip("openvino")
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32", "openvino"), threads=1, parallel=4) as model:
        assert (model.width.count, "OpenVINO" in model.width.why) == (1, True)
        answers = list(model.generate_many([{"prompt": STORY, "max_tokens": 3}] * 3))
        assert len({answer.token_ids for answer in answers if isinstance(answer, Answer)}) == 1


def test_thirty_two_threads_with_mixed_requests_and_ends(alone: SmolVLM, load: Callable[..., SmolVLM]) -> None:
    model, requests = load(parallel=6), [*mixed(24, seed=99), *({"images": [b"none"], "prompt": "?"} for _ in range(2))]
    for request in requests:
        if "choices" in request:
            request["max_tokens"] = 24
    expected = [alone.generate(**request).token_ids if request["images"] != [b"none"] else () for request in requests]

    def one(number: int, chance: random.Random) -> None:
        request, whole = requests[number], expected[number]
        end = chance.choice(["read", "read", "close", "cancel", "timeout", "slow"])
        if not whole:
            with pytest.raises(ValueError, match="picture"):
                model.generate(**request)
        elif end == "read":
            assert model.generate(**request).token_ids == whole
        elif end == "timeout":
            with pytest.raises(StoppedError):
                model.generate(**{**request, "timeout": 1e-4})
        else:
            cancel = threading.Event()
            stream, read = model.stream(**{**request, "cancel": cancel}), []
            for chunk in stream:
                read.append(chunk.token_id)
                if len(read) == 2 and end == "close":
                    break
                if len(read) == 2 and end == "cancel":
                    cancel.set()
                    with suppress(StoppedError):  # unless it was the last token
                        read += [each.token_id for each in stream]
                    assert len(read) <= 3
                    break
                if end == "slow":
                    threading.Event().wait(0.002)
            stream.close()
            assert whole[: len(read)] == tuple(read)

    def many(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            one(chance.randrange(len(requests)), chance)

    resident: list[int] = []
    with ThreadPoolExecutor(32) as pool:
        for half in (range(32), range(32, 64)):
            list(pool.map(many, half))
            gc.collect()
            resident.append(resident_bytes() if sys.platform == "linux" else 0)
    assert resident[1] - resident[0] < 32 << 20
    assert model._driver.callers == []
    assert model._driver.scheduler.admitted == []
