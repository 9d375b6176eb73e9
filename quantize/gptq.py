"""GPTQ: rounding column by column, where the columns still to come make up for what the last one lost.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv
2210.17323): with the columns in the order of their activations' energy ("act-order") and the grid of every block chosen
beforehand ("static groups"), so that the order costs nothing at run time.
"""

import numpy as np
import numpy.typing as npt

from smolvlm_edge.quantize.recipes import Format
from smolvlm_edge.quantize.rounding import BlockQuantized, Floats, Grid, choose_grid

DAMPING = 0.01  # of the mean of the diagonal, as in the paper
ROWS_AT_ONCE = 8192  # bounds the temporaries of a head of 50,000 rows
COLUMNS_AT_ONCE = 128  # columns whose effect on the others is gathered into one matrix product


def gptq(weight: Floats, gram: Floats, format_: Format) -> BlockQuantized:
    """Round a matrix so that its products with the activations, rather than its values, stay as they are.

    Args:
        weight: [rows, columns].
        gram: [columns, columns] The sum over all activations x [columns] of x xᵀ.
        format_: Of blocks.
    """
    rows, columns = weight.shape
    damped = _damped(gram)
    energy = np.diag(damped).astype(np.float32)
    grid = choose_grid(weight, format_.bits, format_.block_size, symmetric=format_.symmetric, importance=energy)
    order = np.argsort(-energy, kind="stable")
    factor = _inverse_factor(damped[np.ix_(order, order)])
    codes = np.empty((rows, grid.scales.shape[1], format_.block_size), np.uint8)
    for start in range(0, rows, ROWS_AT_ONCE):  # rows know nothing of each other
        some = slice(start, start + ROWS_AT_ONCE)
        codes[some] = grid.rows(some).nearest(np.zeros(codes[some].shape, np.float32))  # what fills up the last block
        flat = codes[some].reshape(-1, codes[0].size)
        flat[:, :columns] = _codes(weight[some], grid.rows(some), order, factor, format_.block_size)
    return BlockQuantized(codes, grid, columns)


def _codes(
    weight: Floats, grid: Grid, order: npt.NDArray[np.intp], factor: Floats, block_size: int
) -> npt.NDArray[np.uint8]:
    """Codes [rows, columns], found in an order of the columns."""
    rows, columns = weight.shape
    left = np.ascontiguousarray(weight.T[order])  # [columns, rows]: a column lies in one piece
    codes = np.zeros((rows, columns), np.uint8)
    for start in range(0, columns, COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, columns)
        errors = np.empty((stop - start, rows), np.float32)
        for i in range(start, stop):
            block = np.array([order[i] // block_size])
            value = left[i][:, None, None]
            code = grid.nearest(value, block)
            error = (value - grid.values(code, block))[:, 0, 0] / factor[i, i]
            codes[:, order[i]] = code[:, 0, 0]
            errors[i - start] = error
            left[i + 1 : stop] -= factor[i, i + 1 : stop, None] * error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return codes


def _inverse_factor(gram: npt.NDArray[np.float64]) -> Floats:
    """Upper triangular U with Uᵀ U = the inverse of the matrix."""
    lower = np.linalg.cholesky(np.linalg.inv(gram))
    return np.ascontiguousarray(lower.T, np.float32)


def _damped(gram: Floats) -> npt.NDArray[np.float64]:
    damped = gram.astype(np.float64)
    mean = np.diag(damped).mean() or 1.0
    damped[np.diag_indices_from(damped)] += DAMPING * mean
    return damped
