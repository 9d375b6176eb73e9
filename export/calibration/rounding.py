"""Rounding that knows what a matrix is multiplied with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm_edge.export.calibration.layers import Layers
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import Rounding, round_to_nearest
from smolvlm_edge.quantize import EXACT_BITS, BlockQuantized, Floats, Format
from smolvlm_edge.quantize.gptq import gptq
from smolvlm_edge.quantize.rounding import Grid


class CalibratedRounding:
    """A `Rounding` for the matrices of a decoder, which must be asked for in their order.

    The samples go through the decoder together, one layer at a time, by the weights as they are rounded so far: a
    matrix is fitted to what it will be multiplied with. One layer is in memory at a time.

    Args:
        layers: The original decoder.
        samples: inputs_embeds [positions, hidden] of every sample.
    """

    def __init__(self, layers: Layers, samples: Sequence[Floats]) -> None:
        self._layers, self._hidden = layers, list(samples)
        self._index = -1
        self._reads: dict[str, str] = {}
        """What each matrix of this layer is multiplied with."""
        self._rounded: dict[str, Floats] = {}
        self._gram: tuple[str, Floats] | None = None

    def __call__(self, weight: Weight, format_: Format) -> BlockQuantized:
        """The codes of the next matrix."""
        while weight.name not in self._reads:
            self._next_layer()
        if format_.bits >= EXACT_BITS:
            rounded = round_to_nearest(weight, format_)
        else:
            rounded = gptq(weight.load(), self._gram_of(weight.name), format_)
        if self._index < len(self._layers):  # nothing comes behind the head
            self._rounded[weight.name] = rounded.dequantize()
        return rounded

    def _next_layer(self) -> None:
        if self._index >= 0:
            self._hidden = self._layers.advance(self._index, self._hidden, self._rounded)
        self._index, self._rounded, self._gram = self._index + 1, {}, None
        assert self._index <= len(self._layers), "every matrix is asked for once"
        self._reads = {weight.name: value for weight, value in self._layers.matrices(self._index)}

    def _gram_of(self, name: str) -> Floats:
        """The sum over all positions of x xᵀ, where x is what the matrix is multiplied with."""
        if self._gram is None or self._gram[0] != self._reads[name]:  # gate and up are given the same
            with self._layers.open(self._index, (name,), self._rounded) as run:
                gram = sum(x.T @ x for x in (run(sequence)[name] for sequence in self._hidden))
            self._gram = self._reads[name], np.asarray(gram)
        return self._gram[1]


class RememberedRounding:
    """A `Rounding` whose answers are kept in a folder, for a second target."""

    def __init__(self, rounding: Rounding, folder: Path) -> None:
        self._rounding, self._folder = rounding, folder

    def __call__(self, weight: Weight, format_: Format) -> BlockQuantized:
        """The codes of a matrix."""
        file = self._folder / f"{weight.name}.npz"
        if not file.is_file():
            rounded = self._rounding(weight, format_)
            np.savez(file, **_arrays(rounded))
            return rounded
        with np.load(file) as stored:
            zero_points = stored.get("zero_points")
            grid = Grid(stored["scales"], zero_points, format_.bits)
            return BlockQuantized(stored["codes"], grid, weight.shape[1])


def _arrays(rounded: BlockQuantized) -> dict[str, Any]:
    grid = rounded.grid
    arrays = {"codes": rounded.codes, "scales": grid.scales}
    return arrays if grid.zero_points is None else arrays | {"zero_points": grid.zero_points}
