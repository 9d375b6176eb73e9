"""One model for many callers: threads, event loops, processes, and answers that end early."""

import asyncio
import gc
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from schemas import judge
from test_memory import resident_bytes

from smolvlm_edge import Chunk, EngineError, ImageError, IncompleteError, RequestError, SmolVLM, StoppedError, Timings
from smolvlm_edge.generation.background import AHEAD, run_in_thread, stream_in_thread
from smolvlm_edge.generation.stopping import Stop

QUESTION, STORY = "What is this?", "Tell me a story."
LONG = "Once upon a time there was a picture that nobody had seen. " * 10
PICTURES = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)) for seed in range(4)]

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
LEAK = 40 << 10
"""Bytes for every request are no noise of the allocator's any more; a picture of these takes more, in floats."""


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


@pytest.fixture(scope="module")
def model(bundle: Path) -> SmolVLM:
    return SmolVLM.load(bundle, threads=1)


@pytest.fixture
def open_stream(model: SmolVLM) -> Iterator[Callable[[], None]]:
    """Another thread that holds the model until it is told to let go."""
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        stream = model.stream([], STORY, max_tokens=2)
        next(stream)
        holding.set()
        let_go.wait(60)
        stream.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    yield let_go.set
    let_go.set()
    thread.join()


# -- many threads -----------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def test_who_asks_first_is_answered_first(model: SmolVLM, open_stream: Callable[[], None]) -> None:
    answered: list[int] = []

    def ask(number: int) -> None:
        model.generate([], STORY, max_tokens=2, on_prefill=lambda *_: answered.append(number))

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        wait_for(lambda: len(model._driver.callers) == len(threads) + 1)
    assert answered == []
    open_stream()
    for thread in threads:
        thread.join(60)
    assert answered == list(range(6))


def test_a_busy_model_may_refuse_instead(bundle: Path) -> None:
    model = SmolVLM.load(bundle, busy="raise")
    stream = model.stream([], STORY, max_tokens=2)
    next(stream)
    with ThreadPoolExecutor(1) as pool, pytest.raises(RequestError, match="somebody else"):
        pool.submit(model.generate, [], STORY).result()
    stream.close()
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2
    with pytest.raises(RequestError, match="wait, raise"):
        SmolVLM.load(bundle, busy="maybe")


def test_who_waits_may_give_up(model: SmolVLM, open_stream: Callable[[], None]) -> None:
    with pytest.raises(StoppedError, match=r"after 0\.1 s"):
        model.generate([], STORY, timeout=0.1)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(StoppedError, match="cancelled"):
        model.generate([], STORY, cancel=cancel)
    open_stream()
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


def test_eight_threads_with_fifty_mixed_requests_each(model: SmolVLM) -> None:
    """Every kind of request and of end, all at once on one object: no deadlock, no wrong answer, and flat memory."""
    forms = {"schema": {"schema": PERSON, "on_limit": "complete"}, "choices": {"choices": ["a circle", "a star", "no"]}}
    brief: dict = {"max_tokens": 4, "detail": "low"}
    expected = [model.generate(picture, QUESTION, **brief).token_ids for picture in PICTURES]
    formed = {
        kind: [model.generate(picture, QUESTION, detail="low", max_tokens=30, **form).text for picture in PICTURES]
        for kind, form in forms.items()
    }
    for text in formed["schema"]:
        judge(text, PERSON)
    alone = model.chat(max_tokens=3, detail="low")
    talk = [alone.ask(QUESTION, PICTURES[0]).token_ids, alone.ask("Why?").token_ids]

    def one(number: int, kind: str) -> None:
        picture = PICTURES[number]
        if kind == "generate":
            assert model.generate(picture, QUESTION, **brief).token_ids == expected[number]
        elif kind == "close":
            stream = model.stream(picture, QUESTION, **brief)
            assert (next(stream).token_id, next(stream).token_id) == expected[number][:2]
            stream.close()
        elif kind == "cancel":
            cancel = threading.Event()
            with pytest.raises(StoppedError):
                model.generate(picture, QUESTION, cancel=cancel, on_prefill=lambda *_: cancel.set(), **brief)
        elif kind == "bad picture":
            with pytest.raises(ImageError):
                model.generate([picture, b"none"], QUESTION, **brief)
        elif kind == "chat":
            chat = model.chat(max_tokens=3, detail="low")
            assert [chat.ask(QUESTION, PICTURES[0]).token_ids, chat.ask("Why?").token_ids] == talk
        else:
            answer = model.generate(picture, QUESTION, detail="low", max_tokens=30, **forms[kind])
            assert answer.text == formed[kind][number]

    kinds = ["generate", "close", "cancel", "bad picture", "chat", *forms]

    def many(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(25):
            one(chance.randrange(4), chance.choice(kinds))
        return 25

    resident: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        for half in (range(8), range(8, 16)):
            assert sum(pool.map(many, half)) == 200
            gc.collect()
            resident.append(resident_bytes() if sys.platform == "linux" else 0)
    assert resident[1] - resident[0] < 200 * LEAK


# -- ending early -----------------------------------------------------------------------------------


def test_cancelled_between_tiles(model: SmolVLM) -> None:
    expected = model.generate(PICTURES[0], QUESTION, max_tokens=4).token_ids
    model.close()  # so that its tiles are to be encoded again
    cancel, seen = threading.Event(), []

    def on_tile(done: int, total: int) -> None:
        seen.append((done, total))
        cancel.set()

    with pytest.raises(StoppedError, match="cancelled"):
        model.generate(PICTURES[0], QUESTION, cancel=cancel, on_tile=on_tile)
    assert len(seen) == 1 < seen[0][1]
    assert model.generate(PICTURES[0], QUESTION, max_tokens=4).token_ids == expected


def test_cancelled_while_the_prompt_is_read(model: SmolVLM) -> None:
    expected = model.generate([], LONG, max_tokens=4).token_ids
    model.generate([], STORY, max_tokens=1)
    cancel, seen = threading.Event(), []

    def on_prefill(done: int, total: int) -> None:
        seen.append((done, total))
        cancel.set()

    with pytest.raises(StoppedError):
        model.generate([], LONG, cancel=cancel, on_prefill=on_prefill)
    assert len(seen) == 1
    assert seen[0][0] < seen[0][1]
    after = model.generate([], LONG, max_tokens=4)
    assert after.token_ids == expected
    assert after.timings.cached_tokens == seen[0][0], "what was read need not be read again"


def test_cancelled_in_the_middle_of_an_answer(model: SmolVLM) -> None:
    cancel = threading.Event()
    stream = model.stream([], STORY, cancel=cancel)
    read = [next(stream).token_id for _ in range(3)]
    cancel.set()
    with pytest.raises(StoppedError):
        next(stream)
    assert list(model.generate([], STORY, max_tokens=3).token_ids) == read


def test_a_timeout_ends_an_answer(model: SmolVLM) -> None:
    with pytest.raises(StoppedError, match="not complete after"):
        model.generate([], STORY, timeout=1e-6)
    with pytest.raises(RequestError, match="timeout"):
        model.generate([], STORY, timeout=0)
    assert model.generate([], STORY, max_tokens=2, timeout=3600).timings.generated_tokens == 2


def test_a_cancelled_turn_of_a_chat_can_be_asked_again(model: SmolVLM) -> None:
    chat, cancel = model.chat(max_tokens=3), threading.Event()
    cancel.set()
    with pytest.raises(StoppedError):
        chat.ask(STORY, cancel=cancel)
    assert chat.messages == []
    assert chat.ask(STORY).token_ids == model.generate([], STORY, max_tokens=3).token_ids


def test_the_prompt_is_counted_while_it_is_read(model: SmolVLM) -> None:
    seen: list[tuple[int, int]] = []
    model.generate([], STORY, max_tokens=1)
    answer = model.generate([], LONG, max_tokens=1, on_prefill=lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert sorted(seen) == seen
    assert seen[-1] == (answer.timings.prompt_tokens,) * 2


# -- event loops ------------------------------------------------------------------------------------


async def collect(chunks: AsyncIterator[Chunk]) -> list[int]:
    return [chunk.token_id async for chunk in chunks]


def test_astream_gives_what_stream_gives_and_several_take_turns(model: SmolVLM) -> None:
    expected = [[chunk.token_id for chunk in model.stream(picture, QUESTION, max_tokens=6)] for picture in PICTURES]

    async def ask() -> list[list[int]]:
        return await asyncio.gather(*(collect(model.astream(picture, QUESTION, max_tokens=6)) for picture in PICTURES))

    assert asyncio.run(ask()) == expected


def test_the_event_loop_goes_on_meanwhile(model: SmolVLM) -> None:
    async def ask() -> bool:
        reached, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def on_prefill(*_: int) -> None:
            loop.call_soon_threadsafe(reached.set)
            assert go_on.wait(60)  # only the loop can set it

        task = asyncio.create_task(collect(model.astream([], STORY, max_tokens=2, on_prefill=on_prefill)))
        await reached.wait()
        go_on.set()
        return len(await task) == 2

    assert asyncio.run(ask())


def test_a_cancelled_task_frees_the_model(model: SmolVLM) -> None:
    async def ask() -> int:
        first = asyncio.Event()

        async def read() -> None:
            async for _ in model.astream([], STORY):
                first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(model._driver.callers)

    assert asyncio.run(ask()) == 0
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


def test_astream_keeps_to_a_schema_and_may_be_cancelled_in_the_middle_of_it(model: SmolVLM) -> None:
    wish: dict = {"schema": PERSON, "max_tokens": 40, "on_limit": "complete"}
    expected = model.generate([], STORY, **wish)

    async def ask() -> tuple[str, str]:
        begun = list[str]()

        async def read() -> None:
            async for chunk in model.astream([], STORY, **wish):
                begun.append(chunk.text)
                if len(begun) == 5:
                    task.cancel()

        task = asyncio.create_task(read())
        with pytest.raises(asyncio.CancelledError):
            await task
        return "".join(begun), "".join([chunk.text async for chunk in model.astream([], STORY, **wish)])

    begun, whole = asyncio.run(ask())
    judge(whole, PERSON)
    assert whole == expected.text
    assert whole.startswith(begun)
    assert 0 < len(begun) < len(whole)

    cancel = threading.Event()

    async def ended() -> None:
        async for chunk in model.astream([], STORY, cancel=cancel, **wish):
            if chunk.text:
                cancel.set()

    with pytest.raises(StoppedError, match="cancelled"):
        asyncio.run(ended())
    with pytest.raises(IncompleteError):
        asyncio.run(collect(model.astream([], STORY, schema=PERSON, max_tokens=4)))
    assert model.generate([], STORY, **wish).token_ids == expected.token_ids


def test_a_reader_that_leaves_frees_the_model(model: SmolVLM) -> None:
    async def ask() -> int:
        chunks = model.astream([], STORY)
        await anext(chunks)
        await chunks.aclose()
        return len(model._driver.callers)

    assert asyncio.run(ask()) == 0


def test_mistakes_reach_the_event_loop(model: SmolVLM) -> None:
    for images, prompt, error in (([], " ", RequestError), ("missing.png", QUESTION, ImageError)):
        with pytest.raises(error):
            asyncio.run(collect(model.astream(images, prompt)))
    with pytest.raises(StoppedError):
        asyncio.run(collect(model.astream([], STORY, timeout=1e-6)))


def test_a_slow_reader_is_not_run_away_from() -> None:
    made: list[int] = []

    def endless() -> Iterator[Chunk]:
        while True:
            made.append(len(made))
            yield Chunk("", made[-1], None, Timings())
            stop.check()

    async def read() -> None:
        chunks = stream_in_thread(endless, stop)
        await anext(chunks)
        await asyncio.get_running_loop().run_in_executor(None, wait_for, lambda: len(made) == AHEAD + 2)
        await asyncio.sleep(0.1)
        assert len(made) == AHEAD + 2
        await chunks.aclose()

    stop = Stop()
    asyncio.run(read())


def test_no_chunk_waits_for_another_and_many_come_together() -> None:
    read_so_far, looks = threading.Semaphore(0), []

    def answer() -> Iterator[Chunk]:
        for number in range(45):
            if 0 < number < 5:
                assert read_so_far.acquire(timeout=60), "the last one has not come"
            yield Chunk("", number, None, Timings())

    async def read() -> list[int]:
        loop, got = asyncio.get_running_loop(), []
        call_soon = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (looks.append(args), call_soon(*args))[1]  # type: ignore[method-assign]
        async for chunk in stream_in_thread(answer, Stop()):
            got.append(chunk.token_id)
            read_so_far.release()
        return got

    assert asyncio.run(read()) == list(range(45))
    assert len(looks) < 30, "the event loop was woken for chunks that came at once"


def test_what_is_no_exception_ends_a_stream_all_the_same() -> None:
    """As a panic in a library that is written in Rust."""

    def panics() -> Iterator[Chunk]:
        yield Chunk("", 1, None, Timings())
        raise SystemExit(3)

    async def read() -> None:
        chunks = stream_in_thread(panics, Stop())
        assert (await anext(chunks)).token_id == 1
        with pytest.raises(EngineError, match="broken off: SystemExit"):
            await anext(chunks)

    asyncio.run(read())


def test_who_cancels_twice_waits_for_the_thread_too() -> None:
    gate, made = threading.Event(), []

    def slow() -> Iterator[Chunk]:
        made.append("begun")
        gate.wait(60)
        made.append("ended")
        yield Chunk("", 1, None, Timings())

    async def ask() -> None:
        task = asyncio.ensure_future(run_in_thread(slow, print, threading.Semaphore(1), lambda: None))
        for _ in range(3):
            await asyncio.sleep(0.05)
            task.cancel()
        assert not task.done()
        gate.set()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(ask())
    assert made == ["begun", "ended"]


def test_work_that_no_thread_could_be_started_for_is_stopped() -> None:
    stop = Stop()

    def refuse(_: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> None:
        await run_in_thread(lambda: iter(()), print, threading.Semaphore(1), stop.request, refuse)  # type: ignore[arg-type,return-value]

    with pytest.raises(RuntimeError, match="new thread"):
        asyncio.run(ask())
    with pytest.raises(StoppedError):
        stop.check()


def test_a_chat_in_an_event_loop(model: SmolVLM) -> None:
    expected = model.chat(max_tokens=3)
    answers = [list(expected.ask(text).token_ids) for text in (STORY, "Why?")]

    async def talk() -> list[list[int]]:
        chat = model.chat(max_tokens=3)
        return [await collect(chat.astream(text)) for text in (STORY, "Why?")]

    assert asyncio.run(talk()) == answers


# -- processes --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("idle", ["0", "0.5"])
def test_a_forked_process_is_told_what_to_do(bundle: Path, idle: str) -> None:
    """And ends by itself, closing the model, whether the engine's threads sleep by then or not; the parent goes on."""
    program = """
import os, sys, time
from smolvlm_edge import EngineError, SmolVLM
with SmolVLM.load(sys.argv[1]) as model:
    expected = model.generate([], "Hi", max_tokens=3).token_ids
    stream = model.stream([], "Hi", max_tokens=3)
    next(stream)  # what the parent holds, the child must not wait for
    time.sleep(float(sys.argv[2]))
    child = os.fork()
    if not child:
        try:
            model.generate([], "Hi")
        except EngineError as error:
            print(error, flush=True)
    else:
        assert os.waitpid(child, 0)[1] == 0
        stream.close()
        assert model.generate([], "Hi", max_tokens=3).token_ids == expected
        print("parent")
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(bundle), idle], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    told, parent = result.stdout.splitlines()
    assert "forked" in told
    assert "spawn" in told
    assert parent == "parent"


def answer_in_child(bundle: Path, queue: "multiprocessing.Queue[tuple[int, ...]]") -> None:
    with SmolVLM.load(bundle) as model:
        queue.put(model.generate(PICTURES[0], QUESTION, max_tokens=4).token_ids)


def test_a_spawned_process_loads_its_own(bundle: Path, model: SmolVLM) -> None:
    expected = model.generate(PICTURES[0], QUESTION, max_tokens=4).token_ids
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=answer_in_child, args=(bundle, queue))
    child.start()
    assert queue.get(timeout=120) == expected
    child.join(60)
    assert child.exitcode == 0
