"""Float matrices -> integer codes and scales, by rounding to the nearest."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VALUES_AT_ONCE = 1 << 22  # bounds the temporaries of a 50,000 × 2,048 matrix


@dataclass(frozen=True, slots=True)
class BlockQuantized:
    """A matrix [rows, columns] with a scale and zero point per `block_size` neighbours of a row.

    value = scale * (code - zero_point); the last block of a row is filled up with zeros.
    """

    codes: npt.NDArray[np.uint8]
    """[rows, blocks, block_size], each below 2**bits."""
    scales: npt.NDArray[np.float32]
    """[rows, blocks]"""
    zero_points: npt.NDArray[np.uint8] | None
    """[rows, blocks]; None means 2**(bits - 1) everywhere."""
    columns: int
    bits: int

    @property
    def block_size(self) -> int:
        """Neighbours that share a scale."""
        return self.codes.shape[2]

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The float32 matrix [rows, columns] that the codes stand for."""
        zero_points = np.float32(2 ** (self.bits - 1)) if self.zero_points is None else self.zero_points[..., None]
        values = (self.codes.astype(np.float32) - zero_points) * self.scales[..., None]
        return values.reshape(len(values), -1)[:, : self.columns]


@dataclass(frozen=True, slots=True)
class RowQuantized:
    """A matrix [rows, columns] of int8 codes with one scale per row; value = scale * code."""

    codes: npt.NDArray[np.int8]
    """[rows, columns], from -127 to 127."""
    scales: npt.NDArray[np.float32]
    """[rows]"""

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The float32 matrix [rows, columns] that the codes stand for."""
        return self.codes * self.scales[:, None]


def round_blocks(weight: npt.NDArray[np.float32], bits: int, block_size: int, *, symmetric: bool) -> BlockQuantized:
    """Round a matrix [rows, columns] block by block.

    Symmetric: the largest magnitude of a block becomes the largest code. Asymmetric: the range of the
    block, widened to contain 0, is divided evenly, so that 0 stays exactly 0.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    codes = np.empty((rows, blocks, block_size), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    zero_points = None if symmetric else np.empty((rows, blocks), np.uint8)
    step = max(1, VALUES_AT_ONCE // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        padded = np.pad(weight[part], ((0, 0), (0, blocks * block_size - columns)))
        values = padded.reshape(len(padded), blocks, block_size)
        if zero_points is None:
            codes[part], scales[part] = _round_symmetric(values, bits)
        else:
            codes[part], scales[part], zero_points[part] = _round_asymmetric(values, bits)
    return BlockQuantized(codes, scales, zero_points, columns, bits)


def round_rows(weight: npt.NDArray[np.float32]) -> RowQuantized:
    """Round a matrix [rows, columns] to int8 with one scale per row."""
    scales = _nonzero(np.abs(weight).max(axis=1) / np.float32(127))
    return RowQuantized(np.rint(weight / scales[:, None]).astype(np.int8), scales)


def _round_symmetric(
    values: npt.NDArray[np.float32], bits: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    half = 2 ** (bits - 1)
    scales = _nonzero(np.abs(values).max(axis=2) / np.float32(half - 1))
    codes = np.rint(values / scales[..., None]) + half
    return codes.astype(np.uint8), scales


def _round_asymmetric(
    values: npt.NDArray[np.float32], bits: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    top = 2**bits - 1
    low, high = np.minimum(values.min(axis=2), 0), np.maximum(values.max(axis=2), 0)
    scales = _nonzero((high - low) / np.float32(top))
    zero_points = np.rint(-low / scales)
    codes = np.clip(np.rint(values / scales[..., None]) + zero_points[..., None], 0, top)
    return codes.astype(np.uint8), scales, zero_points.astype(np.uint8)


def _nonzero(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A block of zeros has no scale of its own; any will do."""
    return np.where(scales == 0, np.float32(1), scales).astype(np.float32)
