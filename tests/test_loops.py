"""The rule by which a page that repeats itself is ended, on answers whose tokens are made up here."""

import random
from pathlib import Path

import pytest

from smolvlm_edge import SmolVLM
from smolvlm_edge.generation.loops import LoopDetector

EXAMPLES = Path(__file__).parent.parent / "examples"


def ended_after(tokens: list[int]) -> int | None:
    """How many tokens were needed to notice a loop; None if none was."""
    detector = LoopDetector()
    return next((count for count, token in enumerate(tokens, 1) if detector.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 31, 64])
def test_a_circle_is_noticed_after_256_tokens_of_it(period: int) -> None:
    before = list(range(1000, 1100))
    assert ended_after(before + list(range(period)) * 300) == 100 + 256


def test_longer_circles_and_chance_are_no_loops() -> None:
    assert ended_after(list(range(65)) * 100) is None
    chance = random.Random(0)
    assert ended_after([chance.randrange(4) for _ in range(20_000)]) is None


def test_a_table_with_empty_cells_is_no_loop() -> None:
    row = [7] * 40 + [8]  # forty empty cells and an end of row
    assert ended_after([*row, 1, *row, 2, *row, 3, *row, 4, *row] * 3) is None


def test_a_circle_that_ends_is_forgotten() -> None:
    almost = [5, 6] * 127
    assert ended_after([*almost, 9, *almost]) is None


def test_an_answer_that_repeats_itself_ends_where_the_rule_says() -> None:
    """With a model that always says the same token: 256 of them are a loop, and the answer says that it was cut."""
    with SmolVLM.load("demo") as model:
        never = {"max_tokens": 400, "suppress_tokens": list(range(model.bundle.model.text.vocab_size))[:-1]}
        looped = model.generate(EXAMPLES / "shapes.png", "describe", stop_loops=True, **never)
        assert (len(looped.token_ids), len({*looped.token_ids}), looped.finish_reason) == (256, 1, "length")
        assert len(model.generate(EXAMPLES / "shapes.png", "describe", **never).token_ids) == 400
