"""Matrices of ONNX graphs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from smolvlm_edge.graphs import Floats
from smolvlm_edge.quality.matrices import CODES, Array, Matrix, unpack


@contextmanager
def onnx_matrices(path: Path) -> Iterator[dict[str, Matrix]]:
    """All of them by name; a file that stayed mapped could not be removed on Windows."""
    graph = ir.load(path).graph
    try:
        yield {matrix.name: matrix for matrix in _matrices(graph)}
    finally:
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value.release()


def _matrices(graph: ir.Graph) -> Iterator[Matrix]:
    for node in graph:
        match node.op_type, node.inputs:
            case "MatMul", [_, weight] if weight is not None and weight.is_initializer():
                yield _transposed(weight)
            case "Gather", [table, _]:
                yield _plain(table)
            case "DynamicQuantizeMatMul", [_, codes, scales, *_]:
                yield _int8_rows(codes, scales)
            case "MatMulIntegerToFloat", [_, codes, _, scales, *_]:
                yield _int8_rows(codes, scales)
            case "MatMulNBits", [_, *blocks]:
                yield _blocks(node, *blocks[:3])
            case "GatherBlockQuantized", [codes, _, *scales]:
                yield _blocks(node, codes, *scales)


def _plain(table: ir.Value | None) -> Matrix:
    tensor = _constant(table)
    rows, columns = tensor.shape.numpy()
    return Matrix(_name(tensor), (rows, columns), tensor.nbytes, lambda part: tensor.numpy()[part])


def _transposed(weight: ir.Value | None) -> Matrix:
    tensor = _constant(weight)
    columns, rows = tensor.shape.numpy()
    return Matrix(_name(tensor), (rows, columns), tensor.nbytes, lambda part: tensor.numpy()[:, part].T)


def _int8_rows(codes: ir.Value | None, scales: ir.Value | None) -> Matrix:
    """Int8 codes with a scale per row: value = scale * code. Codes are stored transposed."""
    stored, scale = _transposed(codes), _constant(scales)
    return replace(
        stored,
        nbytes=stored.nbytes + scale.nbytes,
        rows=lambda part: stored.rows(part) * scale.numpy()[part, None],
    )


def _blocks(
    node: ir.Node, codes: ir.Value | None, scales: ir.Value | None, zero_points: ir.Value | None = None
) -> Matrix:
    """Codes with a scale and a zero point per block: value = scale * (code - zero point)."""
    bits, block_size = (node.attributes[name].as_int() for name in ("bits", "block_size"))
    packed, scale = _constant(codes), _constant(scales)
    zero_point = None if zero_points is None else _constant(zero_points)
    rows = packed.shape.numpy()[0]
    in_a_row = 8 * packed.nbytes // (bits * rows)
    columns = node.attributes["K"].as_int() if "K" in node.attributes else in_a_row  # a table's rows are not filled up

    def spread(per_block: Array) -> Array:
        return np.repeat(per_block, block_size, axis=1)[:, :columns]

    def dequantised(part: slice) -> Floats:
        values = unpack(packed.numpy()[part], bits)[:, :columns].astype(np.float32)
        step = scale.numpy().reshape(rows, -1)[part].astype(np.float32)
        if zero_point is None:
            return (values - 2 ** (bits - 1)) * spread(step)
        zero = unpack(zero_point.numpy().reshape(rows, -1)[part], bits)[:, : step.shape[1]]
        return (values - spread(zero)) * spread(step)

    parts = [packed, scale, *([] if zero_point is None else [zero_point])]
    return Matrix(_name(packed), (rows, columns), sum(part.nbytes for part in parts), dequantised)


def _constant(value: ir.Value | None) -> ir.TensorProtocol:
    """What a value holds; scales may be stored narrower than they are used, with a Cast between."""
    assert value is not None
    producer = value.producer()
    if producer is not None and producer.op_type == "Cast":
        return _constant(producer.inputs[0])
    assert value.const_value is not None
    return value.const_value


def _name(tensor: ir.TensorProtocol) -> str:
    """The name of the matrix, as in the checkpoint."""
    return str(tensor.name).removesuffix(CODES)
