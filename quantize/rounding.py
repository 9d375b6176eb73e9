"""Float matrices -> integer codes and scales, by rounding to the nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

VALUES_AT_ONCE = 1 << 22  # bounds the temporaries of a 50,000 × 2,048 matrix
SHRINKS = tuple(float(share) for share in np.arange(1.0, 0.6, -0.05).round(2))
SMALLEST_SCALE = np.float16(6e-8)  # the smallest number above 0 that float16 holds


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that the codes of a matrix [rows, columns] can stand for: scale * (code - zero_point)."""

    scales: npt.NDArray[np.float16]
    """[rows, blocks]"""
    zero_points: npt.NDArray[np.uint8] | None
    """[rows, blocks]; None means 2**(bits - 1) everywhere."""
    bits: int

    def nearest(self, values: Floats, block: slice | npt.NDArray[np.intp] = slice(None)) -> npt.NDArray[np.uint8]:
        """Codes [rows, blocks, n] of values [rows, blocks, n]; `block` chooses among the blocks of the grid."""
        scales, zero_points = self._of(block)
        codes = np.rint(values / scales[..., None])
        codes += zero_points[..., None]
        return np.clip(codes, 0, 2**self.bits - 1, out=codes).astype(np.uint8)

    def values(self, codes: npt.NDArray[np.uint8], block: slice | npt.NDArray[np.intp] = slice(None)) -> Floats:
        """What codes [rows, blocks, n] stand for."""
        scales, zero_points = self._of(block)
        return (codes.astype(np.float32) - zero_points[..., None]) * scales[..., None]

    def rows(self, rows: slice) -> "Grid":
        """The grid of some rows."""
        return Grid(self.scales[rows], None if self.zero_points is None else self.zero_points[rows], self.bits)

    def _of(self, block: slice | npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        scales = self.scales[:, block].astype(np.float32)
        if self.zero_points is None:
            return scales, np.full_like(scales, 2 ** (self.bits - 1))
        return scales, self.zero_points[:, block].astype(np.float32)


@dataclass(frozen=True, slots=True)
class BlockQuantized:
    """A matrix [rows, columns] with a scale and zero point per `block_size` neighbours of a row.

    The last block of a row is filled up with zeros.
    """

    codes: npt.NDArray[np.uint8]
    """[rows, blocks, block_size], each below 2**bits."""
    grid: Grid
    columns: int

    @property
    def block_size(self) -> int:
        """Neighbours that share a scale."""
        return self.codes.shape[2]

    def dequantize(self) -> Floats:
        """The float32 matrix [rows, columns] that the codes stand for."""
        return self.grid.values(self.codes).reshape(len(self.codes), -1)[:, : self.columns]


@dataclass(frozen=True, slots=True)
class RowQuantized:
    """A matrix [rows, columns] of int8 codes with one scale per row; value = scale * code."""

    codes: npt.NDArray[np.int8]
    """[rows, columns], from -127 to 127."""
    scales: Floats
    """[rows]"""

    def dequantize(self) -> Floats:
        """The float32 matrix [rows, columns] that the codes stand for."""
        return self.codes * self.scales[:, None]


def round_blocks(weight: Floats, bits: int, block_size: int, *, symmetric: bool) -> BlockQuantized:
    """Round a matrix [rows, columns] block by block, on the grid of `choose_grid`."""
    grid = choose_grid(weight, bits, block_size, symmetric=symmetric)
    codes = np.empty((*grid.scales.shape, block_size), np.uint8)
    for rows in _slices(weight):
        codes[rows] = grid.rows(rows).nearest(in_blocks(weight[rows], block_size))
    return BlockQuantized(codes, grid, weight.shape[1])


def joined(parts: Sequence[BlockQuantized]) -> BlockQuantized:
    """Matrices side by side; the columns of all but the last fill their blocks."""
    grids = [part.grid for part in parts]
    zero_points = [grid.zero_points for grid in grids if grid.zero_points is not None]
    return BlockQuantized(
        np.concatenate([part.codes for part in parts], axis=1),
        Grid(
            np.concatenate([grid.scales for grid in grids], axis=1),
            np.concatenate(zero_points, axis=1) if zero_points else None,
            grids[0].bits,
        ),
        sum(part.columns for part in parts),
    )


def round_rows(weight: Floats) -> RowQuantized:
    """Round a matrix [rows, columns] to int8 with one scale per row."""
    scales = np.abs(weight).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1  # a row of zeros has no scale of its own; any will do
    return RowQuantized(np.rint(weight / scales[:, None]).astype(np.int8), scales)


def byte_grid(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of the 256 steps from `low` to `high`, widened to contain 0, so that 0 stays exactly 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(np.float32((high - low) / 255), np.finfo(np.float32).tiny)
    return scale, np.uint8(np.rint(-low / scale))


def choose_grid(
    weight: Floats, bits: int, block_size: int, *, symmetric: bool, importance: Floats | None = None
) -> Grid:
    """The grid on which a matrix [rows, columns] loses least when every value is rounded to the nearest.

    Symmetric: the largest magnitude of a block becomes the largest code. Asymmetric: the range of the
    block, widened to contain 0, is divided evenly, so that 0 stays exactly 0. With few codes it pays to clip:
    narrower ranges, whose steps are finer, are tried, and of each block the one that errs least is taken.

    Args:
        weight: The matrix.
        bits: 2, 4 or 8.
        block_size: Neighbours of a row that share a scale.
        symmetric: Whether the grid is the same on both sides of 0.
        importance: [columns] How much a squared error in a column counts; None counts all alike.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    weights = in_blocks((np.ones(columns, np.float32) if importance is None else importance)[None], block_size)
    scales = np.empty((rows, blocks), np.float16)
    zero_points = None if symmetric else np.empty((rows, blocks), np.uint8)
    for part in _slices(weight):
        grid = _best_grid(in_blocks(weight[part], block_size), bits, weights, symmetric=symmetric)
        scales[part] = grid.scales
        if zero_points is not None:
            zero_points[part] = grid.zero_points
    return Grid(scales, zero_points, bits)


def in_blocks(weight: Floats, block_size: int) -> Floats:
    """[rows, columns] -> [rows, blocks, block_size], filled up with zeros."""
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % block_size)))
    return padded.reshape(len(weight), -1, block_size)


def _best_grid(values: Floats, bits: int, importance: Floats, *, symmetric: bool) -> Grid:
    shrinks = SHRINKS if bits < 8 else SHRINKS[:1]
    best = _grid(values, bits, shrinks[0], symmetric=symmetric)
    least = _loss(values, best, importance)
    for shrink in shrinks[1:]:
        other = _grid(values, bits, shrink, symmetric=symmetric)
        loss = _loss(values, other, importance)
        better = loss < least
        least = np.where(better, loss, least)
        best.scales[better] = other.scales[better]
        if best.zero_points is not None and other.zero_points is not None:
            best.zero_points[better] = other.zero_points[better]
    return best


def _grid(values: Floats, bits: int, shrink: float, *, symmetric: bool) -> Grid:
    """The grid that spans the given share of the range of every block [rows, blocks, block_size]."""
    if symmetric:
        half = 2 ** (bits - 1)
        return Grid(_to_scales(np.abs(values).max(axis=2) * shrink / (half - 1)), None, bits)
    top = 2**bits - 1
    low, high = np.minimum(values.min(axis=2), 0) * shrink, np.maximum(values.max(axis=2), 0) * shrink
    scales = _to_scales((high - low) / top)
    return Grid(scales, np.clip(np.rint(-low / scales), 0, top).astype(np.uint8), bits)


def _loss(values: Floats, grid: Grid, importance: Floats) -> Floats:
    errors = grid.values(grid.nearest(values))
    errors -= values
    errors *= errors
    errors *= importance
    return errors.sum(axis=2)


def _to_scales(scales: Floats) -> npt.NDArray[np.float16]:
    """As float16 holds them; a block of zeros has no scale of its own, and any will do."""
    limited = np.clip(scales, SMALLEST_SCALE, np.finfo(np.float16).max)
    return np.where(scales == 0, 1, limited).astype(np.float16)


def _slices(weight: Floats) -> list[slice]:
    step = max(1, VALUES_AT_ONCE // weight.shape[1])
    return [slice(start, start + step) for start in range(0, len(weight), step)]
