"""Every matrix of a bundle beside the reference's, read from the graph files themselves."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from smolvlm_edge.bundle import HALVES, Bundle, Target, Targets
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.graphs import Floats
from smolvlm_edge.quality.matrices import Matrix
from smolvlm_edge.quality.matrices.onnx import onnx_matrices

VALUES_AT_ONCE = 1 << 22
"""Bounds the temporaries of a 50,000 × 2,048 matrix."""
ROUNDS = 3
"""Of least squares; after the second one the factors hardly move."""


@dataclass(frozen=True, slots=True)
class TensorError:
    """What rounding did to one matrix."""

    name: str
    """As in the checkpoint."""
    shape: tuple[int, int]
    bits_per_weight: float
    """Codes, scales and zero points together."""
    relative_error: float
    """Frobenius norm of the difference by that of the reference's matrix, which is rescaled as the bundle's is."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to millionths."""
        rounded = {name: round(getattr(self, name), 6) for name in ("bits_per_weight", "relative_error")}
        return asdict(self) | rounded


def tensor_errors(bundle: Bundle, reference: Bundle, targets: Targets) -> tuple[TensorError, ...]:
    """Compare every matrix of the graphs that are used, the worst first.

    Raises:
        IntegrityError: The two hold matrices of different names or shapes.
    """
    errors, rescaled = [], bundle.recipe.get("rescaled", [])
    for graph, target in ((graph, target) for half, target in targets.items() for graph in HALVES[half]):
        with _opened(bundle, graph, target) as ours, _opened(reference, graph, target) as theirs:
            for name, matrix in ours.items():
                expected = theirs.get(name)
                if expected is None or not _fits(matrix, expected):
                    raise IntegrityError(
                        f"{reference.folder} has no {name} of {list(matrix.shape)}: export both bundles again"
                    )
                rows, columns = expected.shape
                bits = 8 * matrix.nbytes / (rows * columns)
                if name in rescaled:
                    expected = _rescaled(expected, matrix)
                error = _relative_error(matrix, expected)
                errors.append(TensorError(name, expected.shape, bits, error))
    return tuple(sorted(errors, key=lambda error: (-error.relative_error, error.name)))


def _opened(bundle: Bundle, graph: str, target: Target) -> AbstractContextManager[dict[str, Matrix]]:
    path = bundle.graph_path(graph, target)
    if target == "onnx":
        return onnx_matrices(path)
    from smolvlm_edge.quality.matrices.openvino import openvino_matrices  # noqa: PLC0415 - an extra

    return openvino_matrices(path)


def _fits(matrix: Matrix, reference: Matrix) -> bool:
    """Whether it has the reference's shape, but for what fills its rows up to whole blocks."""
    (rows, columns), (expected_rows, expected_columns) = matrix.shape, reference.shape
    return rows == expected_rows and columns >= expected_columns


def _rescaled(reference: Matrix, matrix: Matrix) -> Matrix:
    """The reference with that factor for every row and every column which brings it nearest to the matrix.

    Factors that were moved between matrices before rounding (`export/folding.py`) are not written down. Alternating
    least squares find them: so many values determine so few factors.
    """
    rows, columns = (np.ones(length, np.float32) for length in reference.shape)
    for _ in range(ROUNDS):
        products = squares = np.zeros(1, np.float32)
        for part in _parts(reference.shape):
            values, target = reference.rows(part), matrix.rows(part)[:, : len(columns)]
            scaled = values * columns
            rows[part] = _quotient(np.sum(scaled * target, axis=1), np.sum(scaled**2, axis=1))
            scaled = values * rows[part, None]
            products, squares = products + np.sum(scaled * target, axis=0), squares + np.sum(scaled**2, axis=0)
        columns = _quotient(products, squares)
    return replace(reference, rows=lambda part: reference.rows(part) * rows[part, None] * columns)


def _quotient(products: Floats, squares: Floats) -> Floats:
    return np.divide(products, squares, out=np.ones_like(products), where=squares > 0)


def _relative_error(matrix: Matrix, reference: Matrix) -> float:
    difference = total = 0.0
    for part in _parts(reference.shape):
        theirs = reference.rows(part).astype(np.float64)
        difference += float(np.sum((matrix.rows(part)[:, : reference.shape[1]] - theirs) ** 2))
        total += float(np.sum(theirs**2))
    return float(np.sqrt(difference / total)) if difference else 0.0


def _parts(shape: tuple[int, int]) -> list[slice]:
    rows, columns = shape
    step = max(1, VALUES_AT_ONCE // columns)
    return [slice(start, start + step) for start in range(0, rows, step)]
