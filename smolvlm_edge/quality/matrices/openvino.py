"""Matrices of OpenVINO's graphs."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm_edge.graphs import Floats
from smolvlm_edge.graphs.openvino import ov
from smolvlm_edge.quality.matrices import CODES, Array, Matrix, unpack

Constant = Any
MATRIX_INPUTS = {"MatMul": 1, "Gather": 0}
"""Where an operator takes a matrix."""
DECOMPRESSION = ("Convert", "Subtract", "Multiply", "Reshape")


@contextmanager
def openvino_matrices(path: Path) -> Iterator[dict[str, Matrix]]:
    """All of them by name; the file stays mapped as long as one of them is held."""
    yield {matrix.name: matrix for matrix in _matrices(ov.Core().read_model(path))}


def _matrices(model: Any) -> Iterator[Matrix]:
    for node in model.get_ordered_ops():
        port = MATRIX_INPUTS.get(node.get_type_name())
        if port is None:
            continue
        parts = {each.get_friendly_name().rpartition(".")[2]: each for each in _constants(node.input_value(port))}
        if "codes" in parts:
            yield _compressed(parts)
        elif "weight" in parts:
            yield _plain(parts["weight"])


def _constants(value: Any) -> Iterator[Constant]:
    """What a matrix is made of in the file; nothing if it is computed from an input."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        yield node
    elif node.get_type_name() in DECOMPRESSION:
        for each in node.input_values():
            yield from _constants(each)


def _plain(weight: Constant) -> Matrix:
    rows, columns = weight.get_output_shape(0)
    return Matrix(weight.get_friendly_name(), (rows, columns), weight.data.nbytes, lambda part: weight.data[part])


def _compressed(parts: Mapping[str, Constant]) -> Matrix:
    """Codes [rows, columns] or [rows, blocks, block size]: value = scale * (code - zero point)."""
    codes, scales, zero_points = parts["codes"], parts["scales"], parts.get("zero_points")
    rows, *row = codes.get_output_shape(0)
    columns, scale = math.prod(row), scales.data.reshape(rows, -1, 1)

    def dequantised(part: slice) -> Floats:
        values = _numbers(codes, codes.data.reshape(rows, -1)[part])
        blocks = values.reshape(len(values), scale.shape[1], -1)
        if zero_points is not None:
            blocks -= _numbers(zero_points, zero_points.data.reshape(1, -1))[0, : scale.size].reshape(scale.shape)[part]
        return (blocks * scale[part]).reshape(-1, columns)

    stored = (each.data.nbytes for each in (codes, scales, zero_points) if each is not None)
    return Matrix(codes.get_friendly_name().removesuffix(CODES), (rows, columns), sum(stored), dequantised)


def _numbers(constant: Constant, packed: Array) -> Floats:
    """Some of a constant's numbers [rows, n] from their bytes [rows, ...]."""
    type_ = constant.get_element_type()
    numbers = unpack(packed.view(np.uint8), type_.bitwidth).astype(np.float32)
    if type_.is_signed():  # two's complement
        numbers[numbers >= 2 ** (type_.bitwidth - 1)] -= 2**type_.bitwidth
    return numbers
