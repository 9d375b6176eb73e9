"""Logits become a token the way transformers does it, and the same seed gives the same tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smolvlm_edge import EngineError, RequestError
from smolvlm_edge.generation.logits import (
    keep_epsilon,
    keep_eta,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalise,
    softmax,
)
from smolvlm_edge.generation.sampling import Sampler, Sampling

CASES = json.loads((Path(__file__).parent / "goldens" / "sampling.json").read_text(encoding="utf-8"))["cases"]
NOTHING = np.array([], np.int64)
OUT = -np.inf
QUARTERS = [0.4, 0.1, 0.3, 0.2]
"""Probabilities; their logarithms are logits that softmax turns back into them."""


def logits(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def log(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def kept(values: np.ndarray) -> list[int]:
    return np.flatnonzero(np.isfinite(values)).tolist()


# --- each step by hand -------------------------------------------------------------------------------------------


def test_softmax() -> None:
    assert softmax(logits(3, 3)).tolist() == [0.5, 0.5]
    assert np.allclose(softmax(log(0.4, 0.1, 0.3, 0.2)), QUARTERS, atol=1e-7)
    assert np.allclose(softmax(logits(0, OUT, np.log(3))), [0.25, 0, 0.75], atol=1e-7)


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    assert softmax(logits(1e30, -1e30, 1e30)).tolist() == [0.5, 0, 0.5]


def test_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    assert penalise(logits(4, -4, 0, 4, -4), [0, 1, 2], 2.0).tolist() == [2, -8, 0, 4, -4]


def test_penalty_below_one_rewards() -> None:
    assert penalise(logits(4, -4), [0, 1], 0.5).tolist() == [8, -2]


def test_penalty_of_nothing_seen_changes_nothing() -> None:
    assert penalise(logits(4, -4), [], 2.0).tolist() == [4, -4]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, [1, 5, 3, 4]),
        (1, [OUT, 5, OUT, OUT]),
        (2, [OUT, 5, OUT, 4]),
        (3, [OUT, 5, 3, 4]),
        (4, [1, 5, 3, 4]),
        (99, [1, 5, 3, 4]),
    ],
)
def test_top_k(k: int, expected: list[float]) -> None:
    assert keep_top_k(logits(1, 5, 3, 4), k).tolist() == expected


def test_top_k_keeps_ties_with_the_last() -> None:
    assert kept(keep_top_k(logits(2, 7, 2, 2, 1), 2)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.05, [0]),
        (0.35, [0]),
        (0.45, [0, 2]),
        (0.65, [0, 2]),
        (0.75, [0, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_likeliest_that_reach_p(p: float, expected: list[int]) -> None:
    assert kept(keep_top_p(log(*QUARTERS), p)) == expected


def test_top_p_keeps_one_of_equals() -> None:
    assert len(kept(keep_top_p(logits(1, 1, 1, 1), 1e-6))) == 1


@pytest.mark.parametrize(
    ("min_p", "expected"),
    [(0.0, [0, 1, 2, 3]), (0.2, [0, 1, 2, 3]), (0.3, [0, 2, 3]), (0.6, [0, 2]), (0.8, [0]), (1.0, [0])],
)
def test_min_p_keeps_a_share_of_the_likeliest(min_p: float, expected: list[int]) -> None:
    assert kept(keep_min_p(log(*QUARTERS), min_p)) == expected


STEPS: dict[str, Callable[[np.ndarray, float, list[int]], np.ndarray]] = {
    "repetition_penalty": lambda values, penalty, seen: penalise(values, sorted(set(seen)), penalty),
    "temperature": lambda values, temperature, seen: values / np.float32(temperature),
    "top_k": lambda values, k, seen: keep_top_k(values, int(k)),
    "top_p": lambda values, p, seen: keep_top_p(values, p),
    "min_p": lambda values, min_p, seen: keep_min_p(values, min_p),
    "typical_p": lambda values, p, seen: keep_typical(values, p),
    "epsilon_cutoff": lambda values, epsilon, seen: keep_epsilon(values, epsilon),
    "eta_cutoff": lambda values, epsilon, seen: keep_eta(values, epsilon),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps_leave_their_input_alone(step: str) -> None:
    before = logits(1, -2, 3, 0.5)
    values = before.copy()

    STEPS[step](values, 0.5 if step.endswith(("_p", "_cutoff")) else 2, [0, 1])

    assert values.tolist() == before.tolist()


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "_".join(f"{key}={value}" for key, value in case["steps"].items())
)
def test_steps_are_those_of_transformers(case: dict[str, Any]) -> None:
    values = np.array(case["logits"], np.float32)
    for step, setting in case["steps"].items():
        values = STEPS[step](values, setting, case["seen"])

    expected = np.array([OUT if value is None else value for value in case["expected"]], np.float32)
    assert kept(values) == kept(expected)
    assert np.allclose(values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "_".join(f"{key}={value}" for key, value in case["steps"].items())
)
def test_only_tokens_that_transformers_keeps_are_drawn(case: dict[str, Any]) -> None:
    allowed = {token for token, value in enumerate(case["expected"]) if value is not None}
    sampling = Sampling(**{"temperature": 1.0, "seed": 3, **case["steps"]})

    # a new sampler each time: a drawn token counts as seen from then on
    drawn = {
        Sampler(replaced(sampling, seed), np.array(case["seen"]))(np.array(case["logits"], np.float32))
        for seed in range(60)
    }

    assert drawn <= allowed


def replaced(sampling: Sampling, seed: int) -> Sampling:
    return Sampling(**{name: getattr(sampling, name) for name in Sampling.__slots__} | {"seed": seed})


# --- the whole ---------------------------------------------------------------------------------------------------


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-50, 50, width=32)))
def test_greedy_takes_the_first_of_the_likeliest(values: np.ndarray) -> None:
    token = Sampler(Sampling(), NOTHING)(values)

    assert values[token] == max(values.tolist())
    assert token == values.tolist().index(max(values.tolist()))


def test_greedy_ignores_filters_and_seed() -> None:
    values = logits(1, 5, 3)

    assert {Sampler(Sampling(top_k=2, top_p=0.1, min_p=0.5, seed=seed), NOTHING)(values) for seed in range(5)} == {1}


def test_prompt_and_answer_count_as_seen() -> None:
    choose = Sampler(Sampling(repetition_penalty=2.0), np.array([0, 0]))

    assert [choose(logits(4, 3, 2.5, 1)) for _ in range(4)] == [1, 2, 0, 0]  # 2, 3→1.5, 2.5→1.25, 1


def test_sampler_leaves_the_logits_alone() -> None:
    values = logits(4, 3, 2.5, 1)

    Sampler(Sampling(1.0, top_k=2, top_p=0.9, min_p=0.1, repetition_penalty=2.0, seed=1), np.array([0]))(values)

    assert values.tolist() == [4, 3, 2.5, 1]


def draw(sampling: Sampling, count: int, values: np.ndarray) -> list[int]:
    choose = Sampler(sampling, NOTHING)
    return [choose(values) for _ in range(count)]


def test_the_same_seed_draws_the_same_tokens() -> None:
    values = logits(*np.linspace(0, 3, 100))
    first = draw(Sampling(1.0, seed=42), 30, values)

    assert draw(Sampling(1.0, seed=42), 30, values) == first
    assert draw(Sampling(1.0, seed=43), 30, values) != first


def test_without_a_seed_every_answer_differs() -> None:
    values = logits(*np.zeros(1000))

    assert draw(Sampling(1.0), 20, values) != draw(Sampling(1.0), 20, values)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0, seed=5), [0.4, 0.1, 0.3, 0.2]),
        (Sampling(0.5, seed=5), [16 / 30, 1 / 30, 9 / 30, 4 / 30]),  # squares
        (Sampling(1.0, top_k=2, seed=5), [4 / 7, 0, 3 / 7, 0]),
        (Sampling(1.0, top_p=0.8, seed=5), [4 / 9, 0, 3 / 9, 2 / 9]),
        (Sampling(1.0, min_p=0.6, seed=5), [4 / 7, 0, 3 / 7, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling: Sampling, expected: list[float]) -> None:
    found = np.bincount(draw(sampling, 3000, log(*QUARTERS)), minlength=4) / 3000

    assert np.abs(found - expected).max() < 0.04  # more than four standard deviations


def test_low_temperature_is_all_but_greedy_and_high_is_all_but_even() -> None:
    values = log(*QUARTERS)

    assert set(draw(Sampling(0.01, seed=5), 200, values)) == {0}
    assert np.bincount(draw(Sampling(100.0, seed=5), 3000, values)).min() > 600


@pytest.mark.parametrize("temperature", [1e-38, 1e-40, 1e-50, 1e-300])
def test_the_lowest_temperatures_are_greedy(temperature: float) -> None:
    assert draw(Sampling(temperature, seed=5), 5, logits(1, 2, 3)) == [2] * 5


def test_one_token_may_be_all_that_is_left() -> None:
    assert draw(Sampling(1.0, top_k=1, top_p=0.01, min_p=1.0, seed=5), 5, log(*QUARTERS)) == [0] * 5
    assert draw(Sampling(1.0, seed=5), 5, logits(OUT, 0, OUT)) == [1] * 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", np.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", np.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("min_p", np.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", np.nan),
        ("repetition_penalty", np.inf),
        ("seed", -1),
    ],
)
def test_senseless_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(RequestError, match=field):
        Sampling(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("top_k", 0), ("top_p", 1.0), ("min_p", 0.0), ("min_p", 1.0), ("seed", 0), ("seed", 2**64)],
)
def test_settings_at_their_bounds_are_fine(field: str, value: float) -> None:
    sampling = Sampling(**{"temperature": 1.0, field: value})

    assert draw(sampling, 1, log(*QUARTERS))[0] in range(4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(temperature: float) -> None:
    """Not a choice: argmax would silently take the first NaN for the likeliest token."""
    sampler = Sampler(Sampling(temperature=temperature), np.array([], np.int64))
    with pytest.raises(EngineError, match="NaN"):
        sampler(logits(1, float("nan"), 2))


# --- penalties and bans --------------------------------------------------------------------------------------------


def answer(
    sampling: Sampling, values: np.ndarray, count: int, prompt: list[int], ends: tuple[int, ...] = ()
) -> list[int]:
    choose = Sampler(sampling, np.array(prompt, np.int64), ends)
    return [choose(values) for _ in range(count)]


def test_presence_counts_once_and_frequency_every_time() -> None:
    """By OpenAI's formula, worked by hand; the prompt does not count."""
    values = logits(3, 2.5, 2, 0)
    assert answer(Sampling(presence_penalty=0.6), values, 4, [0, 0, 0]) == [0, 1, 0, 0]  # then 2.4, 1.9, 2
    assert answer(Sampling(frequency_penalty=0.6), values, 5, [0]) == [0, 1, 0, 2, 1]  # 2.4; 1.9; 1.8; 1.4
    assert answer(Sampling(presence_penalty=-2), values, 3, []) == [0, 0, 0]


def test_bias_is_added_before_everything_else() -> None:
    values = logits(3, 2, 1)
    assert answer(Sampling(logit_bias={2: 2.5}), values, 1, []) == [2]
    assert answer(Sampling(logit_bias={0: -100}), values, 1, []) == [1]
    assert answer(Sampling(logit_bias={1: 2}, repetition_penalty=2.0), values, 1, [1]) == [0]  # (2 + 2) / 2 < 3


def test_runs_that_begin_in_the_prompt_are_not_repeated() -> None:
    # 00 is there; after 0 come 1, then 2; what follows 1 and 2 is 0 once
    assert answer(Sampling(no_repeat_ngram_size=2), logits(3, 2, 1), 4, [0, 0]) == [1, 0, 2, 0]
    assert answer(Sampling(no_repeat_ngram_size=1), logits(3, 2, 1), 2, [0]) == [1, 2]
    assert answer(Sampling(no_repeat_ngram_size=9), logits(3, 2, 1), 3, [0]) == [0, 0, 0]


def test_bad_words_but_not_the_end_alone() -> None:
    values = logits(3, 2, 1)
    assert answer(Sampling(bad_words_ids=[[0]]), values, 1, []) == [1]
    assert answer(Sampling(bad_words_ids=[[0]]), values, 1, [], ends=(0,)) == [0]
    assert answer(Sampling(bad_words_ids=[[0, 0]]), values, 3, [2]) == [0, 1, 0]
    assert answer(Sampling(bad_words_ids=[[2, 0, 0]]), values, 3, [2]) == [0, 1, 0]


def test_the_end_waits_for_the_least_length() -> None:
    values = logits(3, 2, 1)
    assert answer(Sampling(min_tokens=2), values, 4, [1, 1], ends=(0,)) == [1, 1, 0, 0]
    assert answer(Sampling(min_tokens=1), values, 2, [], ends=(0, 1)) == [2, 0]
    assert answer(Sampling(min_length=4), values, 4, [1, 1], ends=(0,)) == [1, 1, 0, 0], "the prompt counts"
    assert answer(Sampling(min_length=9, min_tokens=0), values, 1, [1], ends=(0,)) == [0]


def test_biases_of_runs_are_added_where_they_may_be_completed() -> None:
    values = logits(3, 2, 1)
    assert answer(Sampling(sequence_bias=[([2], 2.5)]), values, 2, []) == [2, 2]
    assert answer(Sampling(sequence_bias=[([1, 2], 2.5)]), values, 3, [1]) == [2, 0, 0]
    assert answer(Sampling(sequence_bias=[([1, 2], 1.5), ([0, 1, 2], 1)]), values, 1, [0, 1]) == [2], "both count"
    assert answer(Sampling(sequence_bias=[([1, 2], 1.5), ([0, 1, 2], 1)]), values, 1, [2, 1]) == [0]
    assert answer(Sampling(sequence_bias=[([0], -3)], repetition_penalty=2.0), values, 1, [1, 2]) == [1]  # 0, 1, 0.5


def test_the_end_becomes_likelier_from_a_token_on() -> None:
    # 1 * 1.5 ** n > 3 for the first time at n = 3, the fifth token
    decay = Sampling(exponential_decay_length_penalty=(1, 1.5))
    assert answer(decay, logits(3, 2, 1), 6, [], ends=(2,)) == [0, 0, 0, 0, 2, 2]
    assert answer(decay, logits(3, 2, -1), 6, [], ends=(2,))[3:] == [0, 0, 2], "what is below 0 grows, too"


def test_suppressed_tokens_at_the_beginning_and_everywhere() -> None:
    values = logits(3, 2, 1)
    assert answer(Sampling(suppress_tokens=[0]), values, 2, []) == [1, 1]
    assert answer(Sampling(begin_suppress_tokens=[0]), values, 2, []) == [1, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_left_is_an_error(temperature: float) -> None:
    with pytest.raises(RequestError, match="no token to choose"):
        answer(Sampling(temperature, suppress_tokens=[0, 1, 2]), logits(3, 2, 1), 1, [])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "0.7"),
        ("top_k", 1.5),
        ("top_k", True),
        ("seed", 1.5),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", None),
        ("logit_bias", [1]),
        ("logit_bias", {1: 101}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {"a": 1}),
        ("no_repeat_ngram_size", -1),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [3]),
        ("suppress_tokens", "12"),
        ("suppress_tokens", [-1]),
        ("begin_suppress_tokens", [1.0]),
        ("typical_p", 0),
        ("epsilon_cutoff", 1.0),
        ("eta_cutoff", -0.1),
        ("sequence_bias", {(1,): 1.0}),
        ("sequence_bias", [([1], float("inf"))]),
        ("sequence_bias", [([], 1.0)]),
        ("min_tokens", -1),
        ("min_tokens", True),
        ("min_length", None),
        ("exponential_decay_length_penalty", (3,)),
        ("exponential_decay_length_penalty", (1.5, 1.1)),
        ("exponential_decay_length_penalty", (1, 0)),
    ],
)
def test_settings_of_the_wrong_type_or_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field):
        Sampling(**{field: value})


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": {9: 1}},
        {"sequence_bias": [([1, 9], 1.0)]},
        {"bad_words_ids": [[1, 9]]},
        {"suppress_tokens": [9]},
        {"begin_suppress_tokens": [9]},
    ],
)
def test_tokens_beyond_the_vocabulary_are_refused(options: dict[str, Any]) -> None:
    Sampling(**options).check_vocabulary(10)
    with pytest.raises(RequestError, match="9"):
        Sampling(**options).check_vocabulary(9)
