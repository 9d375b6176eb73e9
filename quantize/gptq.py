"""Rounding a matrix so that its products with what it is multiplied with, rather than its values, stay as they are.

First GPTQ: column by column, where the columns still to come make up for what the last one lost (Frantar et al. 2022,
"GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323), with the columns
in the order of their activations' energy ("act-order") and the grid of every block chosen beforehand ("static groups"),
so that the order costs nothing at run time. Then what GPTQ cannot do, because it never looks back: every code is
chosen anew with all the others as they are (coordinate descent; Behdin et al. 2023, "QuantEase", arXiv 2309.01885), and
the scales of a row are solved for together, by least squares.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smolvlm_edge.quantize.recipes import Format
from smolvlm_edge.quantize.rounding import BlockQuantized, Floats, Grid, choose_grid, joined

DAMPING = 0.05
"""Of the mean of the diagonal. The paper's 1 % fits the calibration set closer, and what it has not seen worse."""
ROUNDS = 2
"""Of descent and scales; further ones gain less than 1 % of the error each."""
ROWS_AT_ONCE = 8192  # bounds the temporaries of a head of 50,000 rows
COLUMNS_AT_ONCE = 128  # columns whose effect on the others is gathered into one matrix product
SOLVED_AT_ONCE = 1 << 22  # numbers in the normal equations of the scales of some rows
COLUMNS_TOGETHER = 4096
"""So many neighbouring columns make up for each other; those of a wider matrix are taken in groups, which bounds the
memory by a few times their square."""

Doubles = npt.NDArray[np.float64]


def column_groups(columns: int) -> list[slice]:
    """The columns that make up for each other."""
    return [slice(start, min(start + COLUMNS_TOGETHER, columns)) for start in range(0, columns, COLUMNS_TOGETHER)]


def add_grams(grams: dict[str, list[Floats]], name: str, x: Floats) -> None:
    """Add xᵀ x of activations [positions, columns] to the sums of that name, one for every group of columns."""
    parts = [x[:, columns] for columns in column_groups(x.shape[1])]
    sums = grams.setdefault(name, [np.zeros((part.shape[1],) * 2, np.float32) for part in parts])
    for i, part in enumerate(parts):
        sums[i] += part.T @ part


def error_costs(grams: Sequence[Floats]) -> Floats:
    """What an error of 1 in each column [columns] costs when the others of its group make up for it.

    It is 1 / [H⁻¹]_jj for the gram matrix H (Hassibi and Stork 1992, "Optimal Brain Surgeon").
    """
    costs = [1 / np.diag(np.linalg.inv(_damped(gram))) for gram in grams]
    return np.concatenate(costs).astype(np.float32)


def fit_blocks(weight: Floats, grams: Sequence[Floats], format_: Format) -> BlockQuantized:
    """The codes and scales of a matrix.

    Args:
        weight: [rows, columns].
        grams: Of every group of columns, [group, group], as `add_grams` sums them up.
        format_: Of blocks.
    """
    groups = zip(column_groups(weight.shape[1]), grams, strict=True)
    return joined([_fit_group(weight[:, columns], gram, format_) for columns, gram in groups])


def _fit_group(weight: Floats, gram: Floats, format_: Format) -> BlockQuantized:
    damped = _damped(gram)
    rounded = gptq(weight, damped, format_)
    gram = damped.astype(np.float32)
    for _ in range(ROUNDS):
        rounded = refit_scales(weight, gram, descend(weight, gram, rounded))
    return rounded


def gptq(weight: Floats, gram: Doubles, format_: Format) -> BlockQuantized:
    """GPTQ alone; `gram` must be positive definite."""
    energy = np.diag(gram).astype(np.float32)
    # the root: columns of little energy are what later ones are made up for with
    grid = choose_grid(
        weight, format_.bits, format_.block_size, symmetric=format_.symmetric, importance=np.sqrt(energy)
    )
    order = np.argsort(-energy, kind="stable")
    factor = _inverse_factor(gram[np.ix_(order, order)])
    codes = _empty_codes(grid, format_.block_size)
    for rows in _slices(len(weight)):
        flat = codes[rows].reshape(-1, codes[0].size)
        flat[:, : len(gram)] = _compensated_codes(weight[rows], grid.rows(rows), order, factor, format_.block_size)
    return BlockQuantized(codes, grid, len(gram))


def descend(weight: Floats, gram: Floats, rounded: BlockQuantized) -> BlockQuantized:
    """Choose every code anew, one column after the other, with all the others as they are."""
    grid, size = rounded.grid, rounded.block_size
    codes = rounded.codes.copy()
    for rows in _slices(len(weight)):
        part = BlockQuantized(rounded.codes[rows], grid.rows(rows), rounded.columns)
        flat = codes[rows].reshape(-1, codes[0].size)
        flat[:, : len(gram)] = _descended_codes(
            flat[:, : len(gram)], part.dequantize() - weight[rows], gram, part.grid, size
        )
    return BlockQuantized(codes, grid, rounded.columns)


def refit_scales(weight: Floats, gram: Floats, rounded: BlockQuantized) -> BlockQuantized:
    """The scales that are best for the codes, those of a row together; none moves by more than a factor of two."""
    grid, columns, (_, blocks, size) = rounded.grid, rounded.columns, rounded.codes.shape
    spare = blocks * size - columns
    gram = np.pad(gram, (0, spare))
    scales = grid.scales.copy()
    for rows in _slices(len(weight), SOLVED_AT_ONCE // blocks**2):
        old = scales[rows].astype(np.float64)
        steps = Grid(np.ones_like(scales[rows]), grid.rows(rows).zero_points, grid.bits).values(rounded.codes[rows])
        # of sum_b s_b steps_b - w, the square by gram: its derivative by every s_b is 0
        wanted = (np.pad(weight[rows], ((0, 0), (0, spare))) @ gram).reshape(steps.shape)
        right = np.einsum("rbi,rbi->rb", wanted, steps)
        left = np.empty((len(steps), blocks, blocks))
        for block in range(blocks):
            seen = steps[:, block] @ gram[block * size : (block + 1) * size]
            left[:, block] = np.einsum("rbi,rbi->rb", seen.reshape(steps.shape), steps)
        left[:, np.arange(blocks), np.arange(blocks)] += 1e-6 * np.einsum("rbb->r", left)[:, None] + 1e-30
        new = np.linalg.solve(left, right[..., None])[..., 0]
        kept = (new > old / 2) & (new < old * 2)
        scales[rows] = np.where(kept, new, old)
    return BlockQuantized(rounded.codes, Grid(scales, grid.zero_points, grid.bits), columns)


def _compensated_codes(
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


def _descended_codes(
    codes: npt.NDArray[np.uint8], errors: Floats, gram: Floats, grid: Grid, block_size: int
) -> npt.NDArray[np.uint8]:
    """Codes [rows, columns] after one pass over the columns; `errors` are theirs."""
    errors = np.ascontiguousarray(errors.T)
    codes = codes.copy()
    for start in range(0, len(gram), COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, len(gram))
        slopes = gram[start:stop] @ errors
        for i in range(start, stop):
            block = np.array([i // block_size])
            old = grid.values(codes[:, i, None, None], block)
            best = old - (slopes[i - start] / gram[i, i])[:, None, None]
            code = grid.nearest(best, block)
            change = (grid.values(code, block) - old)[:, 0, 0]
            codes[:, i] = code[:, 0, 0]
            errors[i] += change
            slopes[i - start + 1 :] += gram[i + 1 : stop, i, None] * change
    return codes


def _empty_codes(grid: Grid, block_size: int) -> npt.NDArray[np.uint8]:
    """Codes [rows, blocks, block_size] of zeros, as they fill up the last block."""
    return np.repeat(grid.nearest(np.zeros((*grid.scales.shape, 1), np.float32)), block_size, axis=2)


def _inverse_factor(gram: Doubles) -> Floats:
    """Upper triangular U with Uᵀ U = the inverse of the matrix."""
    lower = np.linalg.cholesky(np.linalg.inv(gram))
    return np.ascontiguousarray(lower.T, np.float32)


def _damped(gram: Floats) -> Doubles:
    damped = gram.astype(np.float64)
    mean = np.diag(damped).mean() or 1.0
    damped[np.diag_indices_from(damped)] += DAMPING * mean
    return damped


def _slices(rows: int, at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Rows know nothing of each other."""
    step = max(1, at_once)
    return [slice(start, start + step) for start in range(0, rows, step)]
