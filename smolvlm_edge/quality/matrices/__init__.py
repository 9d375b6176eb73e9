"""The matrices of a graph, read from its files: one module for every target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm_edge.graphs import Floats

Array = npt.NDArray[Any]

CODES = ".codes"
"""Follows the name of a matrix in the name of what stands for it."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of a graph."""

    name: str
    shape: tuple[int, int]
    """Rows are outputs, or tokens of a table; rows may be filled up to whole blocks."""
    nbytes: int
    rows: Callable[[slice], Floats]
    """Reads and dequantises rows [some, columns]."""


def unpack(packed: Array, bits: int) -> Array:
    """Codes [rows, n] from bytes [rows, ...], the earlier code in the lower bits of its byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed.reshape(len(packed), -1, 1) >> shifts & (2**bits - 1)
    return codes.reshape(len(packed), -1)
