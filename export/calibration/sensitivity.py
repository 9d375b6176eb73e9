"""What a byte is worth where: how much the answers suffer when one matrix alone is rounded."""

from collections.abc import Callable, Sequence

import numpy as np

from smolvlm_edge.export.calibration.layers import LOGITS, DecoderLayers
from smolvlm_edge.export.calibration.samples import Sample
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Weight
from smolvlm_edge.export.rounding import round_to_nearest
from smolvlm_edge.quantize import Floats, Recipe

POSITIONS = 512
"""Enough to tell matrices apart; there is a stream of hidden states of that length for each of them."""


def sensitivities(
    layers: DecoderLayers,
    samples: Sequence[Sample],
    embedded: Sequence[Floats],
    recipe: Recipe,
    on_layer: Callable[[int, int], None],
) -> dict[str, float]:
    """Mean KL divergence, in nats a position, that rounding one narrow matrix to the nearest costs; by its name.

    One walk through the layers: every matrix of a layer begins a stream of hidden states in which it alone is rounded,
    and all streams go on to the end together.

    Args:
        layers: The original decoder.
        samples: Some sequences, which are cut off at `POSITIONS` in all.
        embedded: inputs_embeds [positions, hidden] of each.
        recipe: What each matrix is rounded to.
        on_layer: Called with the layers that are done and their total.
    """
    original = np.concatenate(embedded)[:POSITIONS]
    input_ids = np.concatenate([sample.input_ids for sample in samples])[:POSITIONS]
    table = layers.checkpoint.weight(TOKEN_TABLE, layers.config.text.vocab_size, original.shape[1])
    streams: dict[str, Floats] = {}
    if recipe.is_narrow(TOKEN_TABLE):
        is_text = input_ids != layers.config.image_token_id
        streams[TOKEN_TABLE] = original.copy()
        streams[TOKEN_TABLE][is_text] = _rounded(table, recipe)[TOKEN_TABLE][input_ids[is_text]]
    for index in range(len(layers)):
        begun = {
            weight.name: layers.advance(index, [original], _rounded(weight, recipe))[0]
            for weight, _ in layers.matrices(index)
            if recipe.is_narrow(weight.name)
        }
        original, *passed = layers.advance(index, [original, *streams.values()], {})
        streams = dict(zip(streams, passed, strict=True)) | begun
        on_layer(index + 1, len(layers) + 1)
    with layers.open(len(layers), (LOGITS,), {}) as run:
        expected = _log_softmax(run(original)[LOGITS])
        costs = {name: _divergence(expected, run(stream)[LOGITS]) for name, stream in streams.items()}
    for head, _ in layers.matrices(len(layers)):
        if recipe.is_narrow(head.name):
            with layers.open(len(layers), (LOGITS,), _rounded(head, recipe)) as run:
                costs[head.name] = _divergence(expected, run(original)[LOGITS])
    on_layer(len(layers) + 1, len(layers) + 1)
    return costs


def _rounded(weight: Weight, recipe: Recipe) -> dict[str, Floats]:
    return {weight.name: round_to_nearest(weight, recipe.format_of(weight.name)).dequantize()}


def _divergence(expected: Floats, logits: Floats) -> float:
    return float((np.exp(expected) * (expected - _log_softmax(logits))).sum(axis=-1).mean())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
