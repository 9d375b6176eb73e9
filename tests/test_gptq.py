"""GPTQ against the definition that it is derived from, and what it is for: products that stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm_edge.quantize import Format, round_blocks
from smolvlm_edge.quantize.gptq import DAMPING, gptq

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
    np.testing.assert_array_equal(gptq(weight, np.eye(48, dtype=np.float32), INT4).codes, nearest.codes)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(17, 150), st.sampled_from([(4, 16, False), (4, 32, True), (8, 32, True)]))
def test_products_lose_less_than_by_rounding_to_the_nearest(seed, columns, kind) -> None:
    bits, block_size, symmetric = kind
    random = np.random.default_rng(seed)
    weight, x = random.standard_normal((32, columns), np.float32), correlated(random, columns, 400)
    format_ = Format("blocks", bits=bits, block_size=block_size, symmetric=symmetric)
    lost = [
        np.linalg.norm(x @ (rounded.dequantize() - weight).T)
        for rounded in (gptq(weight, gram_of(x), format_), round_blocks(weight, bits, block_size, symmetric=symmetric))
    ]
    assert lost[0] < 0.9 * lost[1]


def test_every_step_is_the_least_squares_step_of_the_paper() -> None:
    """Optimal Brain Surgeon, step by step: round one column, solve anew for all columns that are left."""
    random = np.random.default_rng(1)
    columns = 40
    weight, x = random.standard_normal((8, columns), np.float32), correlated(random, columns, 300)
    gram = gram_of(x)
    rounded = gptq(weight, gram, INT4)
    damped = gram.astype(float) + DAMPING * np.diag(gram).mean() * np.eye(columns)
    left, now = list(np.argsort(-np.diag(gram), kind="stable")), weight.astype(float)
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
    assert np.isfinite(gptq(weight, gram, INT4).dequantize()).all()
    assert np.isfinite(gptq(weight, np.zeros_like(gram), INT4).dequantize()).all()


@pytest.mark.parametrize("columns", [20, 33])
def test_a_last_block_that_is_not_full_is_filled_with_zeros(columns: int) -> None:
    random = np.random.default_rng(4)
    weight, x = random.standard_normal((3, columns), np.float32), correlated(random, columns, 100)
    rounded = gptq(weight, gram_of(x), INT4)
    assert rounded.grid.values(rounded.codes).reshape(3, -1)[:, columns:].any() == np.False_
    assert rounded.dequantize().shape == (3, columns)
