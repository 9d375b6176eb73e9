"""Columns of the decoder's narrow matrices, scaled so that those whose errors cost most are rounded finest.

All weights of a block share a step. AWQ (Lin et al. 2023, "Activation-aware Weight Quantization", arXiv 2306.00978)
multiplies a column that matters by a factor, so that the step becomes smaller beside its values, at its neighbours'
expense, and divides what writes the channel by the same. It tells columns that matter by how large their activations
are; here GPTQ rounds afterwards, so a column counts by what the others cannot make up for. As in SmoothQuant the
factors stop half-way, where columns that matter are as large as those that do not.
"""

from collections.abc import Callable, Sequence

import numpy as np

from smolvlm_edge.export.architecture.decoder import PREFIX
from smolvlm_edge.export.calibration import DecoderLayers
from smolvlm_edge.export.checkpoint import HEAD, Checkpoint
from smolvlm_edge.export.folding import balance, fold
from smolvlm_edge.quantize import Floats
from smolvlm_edge.quantize.gptq import add_grams, error_costs

QUERIES_KEYS_VALUES = tuple(f"self_attn.{part}_proj" for part in "qkv")
FOLDS = (
    ("input_layernorm", "self_attn.qkv_proj", QUERIES_KEYS_VALUES),
    ("post_attention_layernorm", "mlp.gate_proj", ("mlp.gate_proj", "mlp.up_proj")),
    ("mlp.up_proj", "mlp.down_proj", ("mlp.down_proj",)),
)
"""Of every layer: what writes channels, a matrix of the graph that reads them, and all of the checkpoint's that do.
(From v_proj to o_proj it would gain 1 % of the KL divergence; from the last norm to the head it gains 6 %.)"""
POSITIONS = 8192
"""So many tell the columns apart."""


def scale_columns(
    layers: DecoderLayers, samples: Sequence[Floats], on_layer: Callable[[int, int], None] = lambda *_: None
) -> list[str]:
    """Fold factors into the weights of the layers' checkpoint.

    Args:
        layers: The decoder.
        samples: What goes into the first layer, [positions, hidden] of every sample; the first of them are enough.
        on_layer: Called with the layers that are done and their total.

    Returns:
        The names of the weights that are not the checkpoint's any more.
    """
    hidden, changed = _first_positions(samples), set()
    for index in range(len(layers)):
        prefix = f"{PREFIX}.layers.{index}"
        watched = [f"{prefix}.{matrix}.weight" for _, matrix, _ in FOLDS]
        grams: dict[str, list[Floats]] = {}
        for values in layers.watch(index, hidden, watched):
            for name in watched:
                add_grams(grams, name, values[name])
        for name, (writer, _, readers) in zip(watched, FOLDS, strict=True):
            names = [f"{prefix}.{reader}" for reader in readers]
            changed |= {name} | _scale(layers.checkpoint, f"{prefix}.{writer}", names, grams[name])
        on_layer(index + 1, len(layers) + 1)
    grams = {}
    with layers.open(len(layers), (HEAD,), {}) as run:
        for sequence in hidden:
            add_grams(grams, HEAD, run(sequence)[HEAD])
    changed |= _scale(layers.checkpoint, f"{PREFIX}.norm", [HEAD.removesuffix(".weight")], grams[HEAD])
    on_layer(len(layers) + 1, len(layers) + 1)
    return sorted(changed)


def _scale(checkpoint: Checkpoint, writer: str, readers: Sequence[str], grams: Sequence[Floats]) -> set[str]:
    weights = np.concatenate([checkpoint.weights[f"{name}.weight"].load() for name in readers])
    sizes = np.sqrt(np.einsum("ij,ij->j", weights, weights))
    return fold(checkpoint, writer, readers, balance(np.sqrt(error_costs(grams)), sizes))


def _first_positions(samples: Sequence[Floats]) -> list[Floats]:
    ends = np.cumsum([len(sample) for sample in samples])
    return list(samples[: int(np.searchsorted(ends, POSITIONS)) + 1])
