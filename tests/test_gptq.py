"""GPTQ against the definition that it is derived from, and what it is for: products that stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm_edge.quantize import BlockQuantized, Format, round_blocks
from smolvlm_edge.quantize import gptq as module
from smolvlm_edge.quantize.gptq import add_grams, column_groups, descend, error_costs, fit_blocks, gptq, refit_scales

INT4 = Format("blocks", bits=4, block_size=16, symmetric=False)


def correlated(random: np.random.Generator, columns: int, count: int) -> np.ndarray:
    """Activations [count, columns] of which a few directions carry most."""
    mixing = random.standard_normal((columns, columns)) * np.geomspace(1, 0.02, columns)
    return (random.standard_normal((count, columns)) @ mixing.T).astype(np.float32)


def gram_of(x: np.ndarray) -> np.ndarray:
    return (x.T @ x).astype(np.float32)


def test_without_correlation_it_rounds_to_the_nearest() -> None:
    weight = np.random.default_rng(0).standard_normal((24, 48), np.float32)
    nearest = round_blocks(weight, 4, 16, symmetric=False)
    np.testing.assert_array_equal(gptq(weight, np.eye(48), INT4).codes, nearest.codes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(17, 150), st.sampled_from([(4, 16, False), (4, 32, True), (8, 32, True)]))
def test_products_lose_less_than_by_rounding_to_the_nearest(seed, columns, kind) -> None:
    bits, block_size, symmetric = kind
    random = np.random.default_rng(seed)
    weight, x = random.standard_normal((32, columns), np.float32), correlated(random, columns, 400)
    format_ = Format("blocks", bits=bits, block_size=block_size, symmetric=symmetric)
    lost = [
        np.linalg.norm(x @ (rounded.dequantize() - weight).T)
        for rounded in (
            fit_blocks(weight, [gram_of(x)], format_),
            round_blocks(weight, bits, block_size, symmetric=symmetric),
        )
    ]
    assert lost[0] < 0.9 * lost[1]


def test_every_step_is_the_least_squares_step_of_the_paper() -> None:
    """Optimal Brain Surgeon, step by step: round one column, solve anew for all columns that are left."""
    random = np.random.default_rng(1)
    columns = 40
    weight, x = random.standard_normal((8, columns), np.float32), correlated(random, columns, 300)
    damped = gram_of(x) + 0.01 * np.eye(columns)
    rounded = gptq(weight, damped, INT4)
    left, now = list(np.argsort(-np.diag(damped), kind="stable")), weight.astype(float)
    values = np.zeros_like(now)
    while left:
        column, *left = left
        block = np.array([column // 16])
        part = now[:, column].astype(np.float32)[:, None, None]
        values[:, column] = rounded.grid.values(rounded.grid.nearest(part, block), block)[:, 0, 0]
        error = values[:, column] - now[:, column]
        if left:  # min over d of (e, d) H (e, d)T
            now[:, left] -= np.outer(error, np.linalg.solve(damped[np.ix_(left, left)], damped[left, column]))
    np.testing.assert_allclose(rounded.dequantize(), values, atol=1e-5)


def test_columns_without_activations_are_no_trouble() -> None:
    weight = np.random.default_rng(2).standard_normal((4, 32), np.float32)
    gram = np.zeros((32, 32), np.float32)
    gram[0, 0] = 5
    assert np.isfinite(fit_blocks(weight, [gram], INT4).dequantize()).all()
    assert np.isfinite(fit_blocks(weight, [np.zeros_like(gram)], INT4).dequantize()).all()


@pytest.mark.parametrize("columns", [20, 33])
def test_a_last_block_that_is_not_full_is_filled_with_zeros(columns: int) -> None:
    random = np.random.default_rng(4)
    weight, x = random.standard_normal((3, columns), np.float32), correlated(random, columns, 100)
    rounded = fit_blocks(weight, [gram_of(x)], INT4)
    assert rounded.grid.values(rounded.codes).reshape(3, -1)[:, columns:].any() == np.False_
    assert rounded.dequantize().shape == (3, columns)


# -- after GPTQ -------------------------------------------------------------------------------------------------


def lost(weight: np.ndarray, gram: np.ndarray, rounded: BlockQuantized) -> float:
    error = (rounded.dequantize() - weight).astype(float)
    return float(np.einsum("rc,cd,rd->", error, gram, error))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(17, 150), st.sampled_from([(4, 16, False), (4, 32, True), (2, 32, False)]))
def test_looking_back_never_makes_it_worse(seed: int, columns: int, kind: tuple[int, int, bool]) -> None:
    bits, block_size, symmetric = kind
    random = np.random.default_rng(seed)
    weight, x = random.standard_normal((16, columns), np.float32), correlated(random, columns, 400)
    gram = gram_of(x)
    rounded = gptq(weight, gram + 0.01 * np.eye(columns), Format("blocks", bits, block_size, symmetric))
    descended = descend(weight, gram, rounded)
    refitted = refit_scales(weight, gram, descended)
    losses = [lost(weight, gram, each) for each in (rounded, descended, refitted)]
    assert losses[1] <= losses[0] * (1 + 1e-4)
    assert losses[2] <= losses[1] * (1 + 2e-3)  # scales are float16
    assert losses[2] < losses[0]


def test_scales_are_the_least_squares_solution() -> None:
    random = np.random.default_rng(5)
    weight, x = random.standard_normal((3, 40), np.float32), correlated(random, 40, 300)
    rounded = round_blocks(weight, 4, 16, symmetric=False)
    refitted = refit_scales(weight, gram_of(x), rounded)
    zero_points = rounded.grid.zero_points
    assert zero_points is not None
    for row in range(3):
        steps = (rounded.codes[row].astype(float) - zero_points[row][:, None]).reshape(-1)[:40]
        products = np.zeros((len(x), 3))
        for column in range(40):
            products[:, column // 16] += x[:, column] * steps[column]
        expected, *_ = np.linalg.lstsq(products, x @ weight[row], rcond=None)
        np.testing.assert_allclose(refitted.grid.scales[row], expected, rtol=2e-3)


def test_a_wide_matrix_is_fitted_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    weight, x = random.standard_normal((8, 100), np.float32), correlated(random, 100, 400)
    monkeypatch.setattr(module, "COLUMNS_TOGETHER", 64)
    groups = column_groups(100)
    assert groups == [slice(0, 64), slice(64, 100)]
    whole = fit_blocks(weight, [gram_of(x[:, group]) for group in groups], INT4)
    apart = [fit_blocks(np.ascontiguousarray(weight[:, group]), [gram_of(x[:, group])], INT4) for group in groups]
    np.testing.assert_array_equal(whole.dequantize(), np.hstack([each.dequantize() for each in apart]))


def test_an_error_costs_what_the_other_columns_cannot_make_up_for() -> None:
    x = correlated(np.random.default_rng(7), 20, 300)
    grams: dict[str, list[np.ndarray]] = {}
    for part in np.split(x, 3):
        add_grams(grams, "x", part)
    costs = error_costs(grams["x"])
    damping = np.sqrt(module.DAMPING * (x**2).sum(axis=0).mean())
    damped = np.vstack([x, damping * np.eye(20)]).astype(float)
    for column in range(20):
        _, left, *_ = np.linalg.lstsq(np.delete(damped, column, axis=1), damped[:, column], rcond=None)
        assert costs[column] == pytest.approx(left[0], rel=1e-3)
