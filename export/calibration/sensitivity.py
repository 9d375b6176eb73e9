"""What a byte is worth where: how much the answers suffer when one matrix alone is rounded."""

from collections.abc import Callable, Sequence

import numpy as np

from smolvlm_edge.export.calibration.layers import LOGITS, DecoderLayers
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.quantize import Floats, Format, round_blocks

POSITIONS = 512
"""Enough to tell matrices apart; there is a stream of hidden states of that length for each of them."""


def sensitivities(
    layers: DecoderLayers, samples: Sequence[Floats], format_: Format, on_layer: Callable[[int, int], None]
) -> dict[str, float]:
    """Mean KL divergence, in nats a position, that rounding one matrix to the nearest costs; by its name, in order.

    One walk through the layers: every matrix of a layer begins a stream of hidden states in which it alone is rounded,
    and all streams go on to the end together.

    Args:
        layers: The original decoder.
        samples: inputs_embeds [positions, hidden] of some sequences, which are cut off at `POSITIONS` in all.
        format_: What a matrix is rounded to.
        on_layer: Called with the layers that are done and their total.
    """
    original = np.concatenate(samples)[:POSITIONS]
    streams: dict[str, Floats] = {}
    for index in range(len(layers)):
        begun = {
            weight.name: layers.advance(index, [original], {weight.name: _rounded(weight, format_)})[0]
            for weight, _ in layers.matrices(index)
        }
        original, *passed = layers.advance(index, [original, *streams.values()], {})
        streams = dict(zip(streams, passed, strict=True)) | begun
        on_layer(index + 1, len(layers) + 1)
    return _divergences(layers, original, streams, format_)


def _divergences(
    layers: DecoderLayers, original: Floats, streams: dict[str, Floats], format_: Format
) -> dict[str, float]:
    """KL(original || stream) behind the head, and that of the head itself."""
    ((head, _),) = layers.matrices(len(layers))
    with layers.open(len(layers), (LOGITS,), {}) as run:
        expected = _log_softmax(run(original)[LOGITS])
        costs = {name: _divergence(expected, run(stream)[LOGITS]) for name, stream in streams.items()}
    with layers.open(len(layers), (LOGITS,), {head.name: _rounded(head, format_)}) as run:
        return costs | {head.name: _divergence(expected, run(original)[LOGITS])}


def _rounded(weight: Weight, format_: Format) -> Floats:
    return round_blocks(weight.load(), format_.bits, format_.block_size, symmetric=format_.symmetric).dequantize()


def _divergence(expected: Floats, logits: Floats) -> float:
    return float((np.exp(expected) * (expected - _log_softmax(logits))).sum(axis=-1).mean())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
