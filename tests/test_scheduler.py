"""The scheduler and its slots, driven by chance, with a decoder whose answers can be worked out by hand."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from smolvlm_edge import RequestError
from smolvlm_edge.errors import EngineError
from smolvlm_edge.generation.scheduler import Scheduler, Task, Work
from smolvlm_edge.generation.slots import HELD_BYTES, Slots
from smolvlm_edge.graphs import Floats

CHUNK, VOCAB, END = 4, 50, 49
SCHEDULES = 10_000


def following(history: Sequence[float]) -> int:
    """What this decoder says after some positions: any other order or number of them gives something else."""
    return int(sum((place + 1) * value for place, value in enumerate(history))) % (VOCAB - 1)


def alone(prompt: list[int], count: int) -> list[int]:
    history = list(prompt)
    for _ in range(count):
        history.append(following(history))
    return history[len(prompt) :]


class CountingDecoder:
    """Keeps what is appended; the logits are high at the token that follows."""

    chunk, bytes_per_position = CHUNK, 1

    def __init__(self, slots: int) -> None:
        self.slots, self.rows = slots, [list[float]() for _ in range(slots)]
        self.computed, self.capacity, self.widths = 0, 0, list[int]()

    @property
    def length(self) -> int:
        return len(self.rows[0])

    def length_of(self, slot: int) -> int:
        return len(self.rows[slot])

    def reserve(self, length: int) -> None:
        self.capacity = max(self.capacity, length)

    def truncate(self, length: int, slot: int = 0) -> None:
        del self.rows[slot][length:]

    def release(self, slot: int) -> None:
        pass

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        assert len(self.rows[target]) >= start
        self.rows[target][start:] = self.rows[source][start:stop]

    def __call__(self, inputs_embeds: Floats, logits_to_keep: int = 1, slot: int = 0) -> Floats:
        assert 0 < len(inputs_embeds) <= CHUNK
        self.computed += len(inputs_embeds)
        self.rows[slot] += inputs_embeds[:, 0].tolist()
        return self._logits([slot])

    def step(self, inputs_embeds: Floats, slots: Sequence[int]) -> Floats:
        assert list(slots) == sorted(set(slots))
        assert len(inputs_embeds) == len(slots)
        self.widths.append(len(slots))
        for slot, embed in zip(slots, inputs_embeds, strict=True):
            assert self.rows[slot], "an empty slot takes no part"
            self.rows[slot].append(float(embed[0]))
        return self._logits(slots)

    def _logits(self, slots: Sequence[int]) -> Floats:
        logits = np.zeros((len(slots), VOCAB), np.float32)
        for row, slot in enumerate(slots):
            logits[row, following(self.rows[slot])] = 1
        return logits

    def close(self) -> None:
        pass


def embed_tokens(ids) -> Floats:
    return ids[..., None].astype(np.float32)


class Embedding:
    def __call__(self, array) -> Floats:
        return embed_tokens(array)

    def close(self) -> None:
        pass


class UnwantedError(Exception):
    pass


@dataclass
class Story:
    """What happens to a task."""

    prompt: list[int]
    count: int
    tiles: int = 0
    cancelled_at: int | None = None
    """The step before which its reader has enough."""
    removed_at: int | None = None
    fails_after: int | None = None
    """Tokens after which its form cannot be kept."""
    reads_every: int = 1
    """Steps between two looks of its reader."""


class Asked(Task):
    """A task with a story; notes when it gets something."""

    def __init__(self, story: Story, slots: Slots, log: list[tuple[str, "Asked"]]) -> None:
        super().__init__(len(story.prompt) + story.count)
        self.story, self._all, self._log = story, slots, log
        self.tokens, self.unread, self.cancelled = list[int](), 0, False

    def work(self) -> Work:
        story, slots = self.story, self._all
        for _ in range(story.tiles):
            self._log.append(("piece", self))
            yield
        keys = np.array(story.prompt, np.int64)
        self.slot, self.slots = slots.take(keys, self.room), slots
        while True:
            start = slots.catch_up(self.slot, keys)
            stop = min(start + CHUNK, len(keys))
            self._log.append(("piece", self))
            logits = slots.append(self.slot, keys[:stop], embed_tokens(keys[start:stop]))
            if stop == len(keys):
                return logits
            yield

    def accept(self, logits: Floats) -> int | None:
        if len(self.tokens) == self.story.fails_after:
            raise UnwantedError
        self.tokens.append(int(logits.argmax()))
        self.unread += 1
        self._log.append(("token", self))
        return None if len(self.tokens) == self.story.count else self.tokens[-1]

    def check(self) -> None:
        if self.cancelled:
            raise UnwantedError

    def is_ready(self) -> bool:
        return self.unread < 3


@dataclass
class Run:
    """One schedule from its first arrival to the end."""

    scheduler: Scheduler
    slots: Slots
    log: list[tuple[str, Asked]] = field(default_factory=list)

    def ask(self, story: Story) -> Asked:
        task = Asked(story, self.slots, self.log)
        self.scheduler.insert(task)
        return task

    def finish(self, tasks: list[Asked], limit: int = 500) -> None:
        for _ in range(limit):
            for task in tasks:
                task.unread = 0
            if not self.scheduler.step():
                break
        assert all(task.done for task in tasks)

    def check_free(self) -> None:
        assert self.slots.free == list(range(self.slots.decoder.slots))
        assert self.scheduler.admitted == []


def new_run(width: int, budget: int | None = None) -> Run:
    return Run(Scheduler(width, budget), Slots(CountingDecoder(width), Embedding(), budget))


def chance_story(chance: random.Random) -> Story:
    beginning = [[7] * 5, [7] * 9 + [1], [3, 4, 5]][chance.randrange(3)]
    prompt = beginning + [chance.randrange(40) for _ in range(chance.randrange(1, 9))]
    story = Story(prompt, chance.randrange(1, 7), tiles=chance.choice([0, 0, 1, 3]))
    match chance.randrange(8):
        case 0:
            story.cancelled_at = chance.randrange(12)
        case 1:
            story.removed_at = chance.randrange(12)
        case 2:
            story.fails_after = chance.randrange(story.count)
        case 3:
            story.reads_every = 5
    return story


def play(seed: int) -> None:
    """Tasks that arrive, are read, cancelled, removed and fail when chance has it, to the end."""
    chance = random.Random(seed)
    width = chance.randrange(1, 5)
    run = new_run(width, chance.choice([None, None, 30, 60]))
    arrivals = sorted((chance.randrange(20), number) for number in range(chance.randrange(1, 7)))
    stories = [chance_story(chance) for _ in arrivals]
    tasks: list[Asked] = []
    for now in range(400):
        while len(tasks) < len(arrivals) and arrivals[len(tasks)][0] <= now:
            tasks.append(run.ask(stories[len(tasks)]))
        for task in tasks:
            task.cancelled = task.cancelled or task.story.cancelled_at == now
            if task.story.removed_at == now:
                run.scheduler.remove(task)
            if now % task.story.reads_every == 0:
                task.unread = 0
        before = len(run.log)
        ready = [task for task in run.scheduler.admitted if task.tokens and not task.done and task.is_ready()]
        run.scheduler.step()
        check_step(run, run.log[before:], ready)
        in_line = [task.admitted for task in tasks if task.admitted or not task.done]
        assert in_line == sorted(in_line, reverse=True), "nobody is let in before who came earlier"
        if len(tasks) == len(arrivals) and all(task.done for task in tasks):
            break
    check_answers(tasks)
    check_turns(run)
    run.check_free()


def first_of_each(log: list[tuple[str, Asked]]) -> list[tuple[str, Asked]]:
    seen: list[Asked] = []
    return [entry for entry in log if entry[1] not in seen and not seen.append(entry[1])]


def check_step(run: Run, log: list[tuple[str, Asked]], ready: list[Task]) -> None:
    """One token each for all that ran, and at most one piece of anything else."""
    assert len(run.scheduler.admitted) <= run.scheduler.width
    budget = run.scheduler.budget
    assert budget is None or sum(task.room for task in run.scheduler.admitted) <= budget
    got = [task for kind, task in log if kind == "token" and task in ready]
    assert len(got) == len(set(map(id, got)))
    for task in ready:
        assert task in got or task.error is not None
    assert sum(kind == "piece" for kind, _ in log) <= 1


def check_answers(tasks: list[Asked]) -> None:
    for task in tasks:
        story, expected = task.story, alone(task.story.prompt, task.story.count)
        assert task.done
        assert task.tokens == expected[: len(task.tokens)], "what others do changes nothing"
        if task.error is None and story.removed_at is None:
            assert task.tokens == expected
        assert isinstance(task.error, UnwantedError | None)
        if story.cancelled_at is None and story.fails_after is None:
            assert task.error is None


def check_turns(run: Run) -> None:
    """Who is being prepared gets a second piece only after everybody else who was there got one."""
    pieces = [task for kind, task in run.log if kind == "piece"]
    for place, task in enumerate(pieces):
        between = pieces[place + 1 :]
        if task in between:
            between = between[: between.index(task)]
            assert len(between) == len(set(map(id, between)))


def test_ten_thousand_schedules() -> None:
    for seed in range(SCHEDULES):
        try:
            play(seed)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error


def test_who_comes_first_begins_first() -> None:
    for width in (1, 3):
        run = new_run(width)
        tasks = [run.ask(Story([number] * (2 + 3 * number), 2)) for number in range(7)]
        run.finish(tasks)
        assert [task for _, task in first_of_each(run.log)] == tasks


def test_a_long_prompt_stops_neither_streams_nor_a_short_one() -> None:
    run = new_run(3)
    stream = run.ask(Story([1, 2], 60))
    run.scheduler.step()
    long = run.ask(Story(list(range(CHUNK * 20)), 1))
    short = run.ask(Story([9], 1))
    for steps in range(1, 60):
        stream.unread = 0
        run.scheduler.step()
        assert len(stream.tokens) == steps + 1, "a token every step"
        if short.done:
            break
    assert steps <= 3
    assert not long.tokens


def test_a_slow_reader_waits_alone() -> None:
    run = new_run(2)
    slow, quick = run.ask(Story([1, 2], 20)), run.ask(Story([3, 4], 20))
    while not quick.done:
        quick.unread = 0
        assert run.scheduler.step()
    assert len(slow.tokens) == 3, "as many as there is room for"
    assert not run.scheduler.step(), "nothing to do until somebody reads"
    run.finish([slow])
    assert slow.tokens == alone([1, 2], 20)


def test_what_begins_alike_is_computed_once() -> None:
    run = new_run(8)
    picture = [40 + number % 7 for number in range(CHUNK * 6)]
    tasks = [run.ask(Story([*picture, number, 3], 20)) for number in range(100)]
    run.finish(tasks, 5000)
    check_answers(tasks)
    decoder = run.slots.decoder
    assert isinstance(decoder, CountingDecoder)
    assert decoder.computed == len(picture) + 2 * len(tasks)
    assert max(decoder.widths) == 8


def test_a_prompt_of_before_is_still_there_after_others() -> None:
    run = new_run(4)
    chats = [[number] * (CHUNK * 3) for number in range(4)]
    decoder = run.slots.decoder
    assert isinstance(decoder, CountingDecoder)
    for chat in chats:
        run.finish([run.ask(Story([*chat, 1], 2))])
    before = decoder.computed
    for chat in chats:
        run.finish([run.ask(Story([*chat, 2], 2))])
    assert decoder.computed - before == len(chats), "four slots hold four prompts, one after the other in the first"


def test_what_free_slots_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolvlm_edge.generation.slots.HELD_BYTES", CHUNK * 5)
    run = new_run(8)
    run.finish([run.ask(Story([number] * (CHUNK * 2 + 1), 2)) for number in range(8)])
    decoder = run.slots.decoder
    assert isinstance(decoder, CountingDecoder)
    assert sorted(map(len, decoder.rows)) == [0] * 6 + [CHUNK * 2] * 2
    run.finish([run.ask(Story([9] * (CHUNK * 9 + 1), 2))])
    assert sorted(map(len, decoder.rows)) == [0] * 7 + [CHUNK * 9], "the latest stays, whatever it takes"
    assert HELD_BYTES > 1 << 20


def test_slots_that_stop_shrink_the_run() -> None:
    run = new_run(4)
    tasks = [run.ask(Story([number, 1], count)) for number, count in enumerate((2, 30, 3, 30))]
    run.finish(tasks)
    check_answers(tasks)
    assert abs(tasks[3].slot - tasks[1].slot) == 1, "nothing lies between them"


def test_the_budget_decides_how_many_run_and_who_never_fits_is_told() -> None:
    run = new_run(4, budget=20)
    tasks = [run.ask(Story([number] * 5, 4)) for number in range(4)]
    run.scheduler.step()
    assert {*run.scheduler.admitted} == {*tasks[:2]}
    with pytest.raises(RequestError, match=r"26 positions .* has room for 20"):
        run.ask(Story([1] * 20, 6))
    run.finish(tasks)
    check_answers(tasks)


def test_an_engine_that_fails_ends_those_it_computed_for() -> None:
    run = new_run(2)
    tasks = [run.ask(Story([number], 5)) for number in range(2)]
    while not all(task.tokens for task in tasks):
        run.scheduler.step()
    decoder, failure = run.slots.decoder, EngineError("broken")

    def fail(*_: object) -> Floats:
        raise failure

    working, decoder.step = decoder.step, fail  # type: ignore[method-assign]
    run.scheduler.step()
    assert [task.error for task in tasks] == [failure] * 2
    decoder.step = working  # type: ignore[method-assign]
    run.check_free()
    after = run.ask(Story([1, 2], 3))
    run.finish([after])
    check_answers([after])


def test_memory_that_is_not_there_ends_who_asked_for_it() -> None:
    run = new_run(2)
    decoder, failure = run.slots.decoder, EngineError("not enough memory")
    reserve = decoder.reserve

    def fail(length: int) -> None:
        if length > 50:
            raise failure

    decoder.reserve = fail  # type: ignore[method-assign]
    large, small = run.ask(Story([1] * 60, 2)), run.ask(Story([2], 2))
    run.finish([large, small])
    assert (large.error, small.tokens) == (failure, alone([2], 2))
    decoder.reserve = reserve  # type: ignore[method-assign]
    run.check_free()


def test_a_close_and_an_interrupt_end_what_has_begun() -> None:
    for end in ("close", "abandon"):
        run, error = new_run(1), EngineError("closed")
        begun, waiting = run.ask(Story([1], 9)), run.ask(Story([2], 2))
        run.scheduler.step()
        getattr(run.scheduler, end)(error)
        run.finish([begun, waiting])
        assert begun.error is error
        assert waiting.error is None
        assert waiting.tokens == alone([2], 2)
