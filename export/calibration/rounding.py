"""Rounding that knows what a matrix is multiplied with."""

from collections.abc import Sequence

import numpy as np

from smolvlm_edge.export.calibration.layers import DELTA, HIDDEN, Layers, total
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import round_to_nearest
from smolvlm_edge.quantize import BlockQuantized, Floats, Format
from smolvlm_edge.quantize.gptq import gptq, retarget

EXACT_BITS = 8
"""From here on, rounding to the nearest loses too little to be made up for."""


class CalibratedRounding:
    """A `Rounding` for the matrices of a decoder, which must be asked for in their order.

    Two streams of hidden states go through the layers side by side, as the original weights make them and as the
    rounded weights make them. A matrix is rounded so that it makes of the second what it made of the first. One layer
    and what its matrices are multiplied with are in memory at a time.

    Args:
        layers: The original decoder.
        samples: inputs_embeds [positions, hidden] of every sample, by the original token table and by the rounded one.
    """

    def __init__(self, layers: Layers, samples: Sequence[tuple[Floats, Floats]]) -> None:
        self._layers = layers
        self._original, self._rounded = ([pair[i] for pair in samples] for i in (0, 1))
        self._index = -1
        self._replaced: dict[str, Floats] = {}
        self._wanted: dict[str, list[Floats]] = {}
        """What the matrices of this layer are multiplied with in the original model."""
        self._products: tuple[Floats, Floats, Floats] | None = None

    def __call__(self, weight: Weight, format_: Format) -> BlockQuantized:
        """The codes of the next matrix."""
        while weight.name not in self._wanted:
            self._next_layer()
        if format_.bits >= EXACT_BITS:
            rounded = round_to_nearest(weight, format_)
        else:
            gram, cross = self._observe(weight.name)
            rounded = gptq(retarget(weight.load(), gram, cross), gram, format_)
        self._replaced[weight.name] = rounded.dequantize()
        return rounded

    def _next_layer(self) -> None:
        if self._index >= 0:
            self._rounded = self._layers.advance(self._index, self._rounded, self._replaced)
        self._index, self._replaced, self._products = self._index + 1, {}, None
        assert self._index <= len(self._layers), "every matrix is asked for once"
        with self._layers.open(self._index, None, {}) as run:
            runs = [run(sequence) for sequence in self._original]
        if self._index < len(self._layers):
            self._original = [total(values) for values in runs]
        names = runs[0].keys() - {HIDDEN, DELTA}
        self._wanted = {name: [values[name] for values in runs] for name in names}

    def _observe(self, name: str) -> tuple[Floats, Floats]:
        """Sums over all positions of x xᵀ and (y - x) xᵀ: x the matrix is multiplied with now, y it should be."""
        wanted = self._wanted.pop(name)
        if self._products is None or self._products[0] is not wanted[0]:  # gate and up are given the same
            width = wanted[0].shape[-1]
            gram, cross = np.zeros((width, width), np.float32), np.zeros((width, width), np.float32)
            with self._layers.open(self._index, (name,), self._replaced) as run:
                for sequence, y in zip(self._rounded, wanted, strict=True):
                    x = run(sequence)[name]
                    gram += x.T @ x
                    cross += (y - x).T @ x
            self._products = wanted[0], gram, cross
        return self._products[1:]
