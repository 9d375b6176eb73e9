"""Channels of the vision encoder that stand out, evened out before its activations are rounded to int8.

A token's int8 scale follows its largest channel; a channel fifty times larger than the others leaves them five of
255 levels. SmoothQuant (Xiao et al. 2022, arXiv 2211.10438) divides such a channel by a factor and multiplies the
weights that read it by the same: the function stays. The factors are folded into what writes the channel, so that
they cost nothing at run time.
"""

from collections.abc import Sequence

import numpy as np

from smolvlm_edge.export.architecture.vision_encoder import PREFIX
from smolvlm_edge.export.calibration import VisionLayers
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.export.folding import balance, fold
from smolvlm_edge.quantize import Floats

FOLDS = (
    ("layer_norm1", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.v_proj", ("self_attn.out_proj",)),
    ("layer_norm2", ("mlp.fc1",)),
)
"""Of every layer: what writes channels, and the matrices that read them. What fc2 reads comes out of GELU, through
which no factor passes."""
STANDS_OUT = 8
"""Times the median channel. A token's other channels are left with a thirtieth of the 255 levels then."""


def smooth(layers: VisionLayers, tiles: Sequence[Floats]) -> list[str]:
    """Fold smoothing factors into the weights of the layers' checkpoint, where channels stand out.

    Args:
        layers: The vision encoder.
        tiles: pixel_values [3, H, W] of some tiles, which show how large each channel becomes.

    Returns:
        The names of the weights that are not the checkpoint's any more.
    """
    hidden, changed = layers.embed(tiles), set()
    for index in range(len(layers)):
        prefix = f"{PREFIX}.encoder.layers.{index}"
        folds = [(f"{prefix}.{writer}", [f"{prefix}.{reader}" for reader in readers]) for writer, readers in FOLDS]
        watched = [f"{readers[0]}.weight" for _, readers in folds]
        peaks: dict[str, Floats] = {}  # how large every channel [columns] becomes
        for values in layers.watch(index, hidden, watched):
            for name in watched:
                peaks[name] = np.maximum(np.abs(values[name]).max(axis=0), peaks.get(name, 0))
        for name, (writer, readers) in zip(watched, folds, strict=True):
            largest = peaks[name]
            if largest.max() > STANDS_OUT * np.median(largest):
                changed |= fold(layers.checkpoint, writer, readers, _factors(layers.checkpoint, readers, largest))
    return sorted(changed)


def _factors(checkpoint: Checkpoint, readers: Sequence[str], peaks: Floats) -> Floats:
    weights = [np.abs(checkpoint.weights[f"{name}.weight"].load()).max(axis=0) for name in readers]
    return balance(peaks, np.max(weights, axis=0))
