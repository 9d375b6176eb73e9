"""Every matrix of a bundle beside the reference's, read from the graph files themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from smolvlm_edge.bundle import GRAPH_NAMES, Bundle
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.graphs import Floats

VALUES_AT_ONCE = 1 << 22
"""Bounds the temporaries of a 50,000 × 2,048 matrix."""

CODES = ".codes"
"""Follows the name of a matrix in the name of what stands for it."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorError:
    """What rounding did to one matrix."""

    name: str
    """As in the checkpoint."""
    shape: tuple[int, int]
    bits_per_weight: float
    """Codes, scales and zero points together."""
    relative_error: float
    """Frobenius norm of the difference by that of the reference's matrix."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to millionths."""
        rounded = {name: round(getattr(self, name), 6) for name in ("bits_per_weight", "relative_error")}
        return {**asdict(self), **rounded}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of a graph."""

    name: str
    shape: tuple[int, int]
    """Rows are outputs, or tokens of a table."""
    nbytes: int
    rows: Callable[[slice], Floats]
    """Reads and dequantises rows [some, columns]."""


def tensor_errors(bundle: Bundle, reference: Bundle) -> tuple[TensorError, ...]:
    """Compare every matrix, the worst first.

    Raises:
        IntegrityError: The two hold matrices of different names or shapes.
    """
    errors = []
    for graph in GRAPH_NAMES:
        with _opened(bundle.graph_path(graph)) as ours, _opened(reference.graph_path(graph)) as theirs:
            for name, matrix in ours.items():
                expected = theirs.get(name)
                if expected is None or expected.shape != matrix.shape:
                    raise IntegrityError(
                        f"{reference.folder} has no {name} of {list(matrix.shape)}: export both bundles again"
                    )
                bits = 8 * matrix.nbytes / (matrix.shape[0] * matrix.shape[1])
                errors.append(TensorError(name, matrix.shape, bits, _relative_error(matrix, expected)))
    return tuple(sorted(errors, key=lambda error: (-error.relative_error, error.name)))


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, Matrix]]:
    """The matrices of an ONNX graph by name; a file that stayed mapped could not be removed on Windows."""
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
            case "MatMulNBits", [_, *blocks]:
                yield _blocks(node, *blocks[:3])
            case "GatherBlockQuantized", [codes, _, *scales]:
                yield _blocks(node, codes, *scales)


def _relative_error(matrix: Matrix, reference: Matrix) -> float:
    difference = total = 0.0
    rows, columns = matrix.shape
    step = max(1, VALUES_AT_ONCE // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        theirs = reference.rows(part).astype(np.float64)
        difference += float(np.sum((matrix.rows(part) - theirs) ** 2))
        total += float(np.sum(theirs**2))
    return float(np.sqrt(difference / total)) if difference else 0.0


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
        values = _unpack(packed.numpy()[part], bits)[:, :columns].astype(np.float32)
        step = scale.numpy().reshape(rows, -1)[part].astype(np.float32)
        if zero_point is None:
            return (values - 2 ** (bits - 1)) * spread(step)
        zero = _unpack(zero_point.numpy().reshape(rows, -1)[part], bits)[:, : step.shape[1]]
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


def _unpack(packed: Array, bits: int) -> Array:
    """Codes [rows, n] from bytes [rows, ...], the earlier code in the lower bits of its byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed.reshape(len(packed), -1, 1) >> shifts & (2**bits - 1)
    return codes.reshape(len(packed), -1)
