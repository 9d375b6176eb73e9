"""Rounding that knows what a matrix is multiplied with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm_edge.export.calibration.layers import DELTA, HIDDEN, Layers, total
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import Rounding, round_to_nearest
from smolvlm_edge.quantize import EXACT_BITS, BlockQuantized, Floats, Format, Recipe
from smolvlm_edge.quantize.gptq import add_grams, fit_blocks
from smolvlm_edge.quantize.rounding import Grid


class CalibratedRounding:
    """A `Rounding` for the matrices of one half of the model, which must be asked for in their order.

    The samples go through the original layers together, one layer at a time; what a layer's matrices are multiplied
    with is all that is kept of it. (Going on with the layers as they are rounded costs twice the time, for which twice
    as many samples do more.)

    Args:
        layers: The original.
        samples: What goes into the first layer, [positions, hidden] of every sample.
        recipe: Which matrices are narrow, so that they are fitted.
    """

    def __init__(self, layers: Layers, samples: Sequence[Floats], recipe: Recipe) -> None:
        self._layers, self._hidden, self._recipe = layers, list(samples), recipe
        self._index = -1
        self._reads: dict[str, str] = {}
        """What each matrix of this layer is multiplied with."""
        self._grams: dict[str, list[Floats]] = {}
        """Of every value that narrow matrices are multiplied with."""

    def __call__(self, weight: Weight, format_: Format) -> BlockQuantized:
        """The codes of the next matrix."""
        while weight.name not in self._reads:
            self._next_layer()
        if format_.bits >= EXACT_BITS:
            return round_to_nearest(weight, format_)
        return fit_blocks(weight.load(), self._grams[self._reads[weight.name]], format_)

    def _next_layer(self) -> None:
        self._index += 1
        assert self._index <= len(self._layers), "every matrix is asked for once"
        matrices = self._layers.matrices(self._index)
        self._reads = {weight.name: value for weight, value in matrices}
        # gate and up are given the same
        readers = {
            self._reads[weight.name]: weight.name for weight, _ in matrices if self._recipe.is_narrow(weight.name)
        }
        self._grams = {}
        wanted = [*readers.values(), *((HIDDEN, DELTA) if self._index < len(self._layers) else ())]
        if not wanted:  # a head that is not narrow
            return
        with self._layers.open(self._index, wanted, {}) as run:
            for i, sequence in enumerate(self._hidden):
                values = run(sequence)
                for value, reader in readers.items():
                    add_grams(self._grams, value, values[reader])
                if HIDDEN in values:
                    self._hidden[i] = total(values)


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
