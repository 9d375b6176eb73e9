"""Channels of the vision encoder that stand out, evened out before its activations are rounded to int8.

A token's int8 scale follows its largest channel; a channel fifty times larger than the others leaves them five of
255 levels. SmoothQuant (Xiao et al. 2022, arXiv 2211.10438) divides such a channel by a factor and multiplies the
weights that read it by the same: the function stays. The factors are folded into what writes the channel, so that
they cost nothing at run time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from smolvlm_edge.export.architecture.vision_encoder import PREFIX
from smolvlm_edge.export.calibration import VisionLayers
from smolvlm_edge.export.checkpoint import Checkpoint
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
        The names of the matrices that are not the checkpoint's any more.
    """
    hidden, changed = layers.embed(tiles), set()
    for index in range(len(layers)):
        prefix = f"{PREFIX}.encoder.layers.{index}"
        folds = [
            (f"{prefix}.{writer}", [f"{prefix}.{reader}.weight" for reader in readers]) for writer, readers in FOLDS
        ]
        peaks: dict[str, Floats] = {}  # how large every channel [columns] becomes
        for values in layers.watch(index, hidden, [names[0] for _, names in folds]):
            for _, (name, *_) in folds:
                peaks[name] = np.maximum(np.abs(values[name]).max(axis=0), peaks.get(name, 0))
        for writer, names in folds:
            largest = peaks[names[0]]
            if largest.max() > STANDS_OUT * np.median(largest):
                _fold(layers.checkpoint, writer, names, largest)
                changed |= {f"{writer}.weight", *names}
    return sorted(changed)


def _fold(checkpoint: Checkpoint, writer: str, readers: Sequence[str], peaks: Floats) -> None:
    """Move half of what stands out, on a logarithmic scale, from the activations to the weights."""
    weights = np.max([np.abs(checkpoint.weights[name].load()).max(axis=0) for name in readers], axis=0)
    factors = np.ones_like(peaks)
    used = (peaks > 0) & (weights > 0)
    factors[used] = np.sqrt(peaks[used] / weights[used])
    factors[used] /= np.exp(np.log(factors[used]).mean()) if used.any() else 1
    for part in ("weight", "bias"):
        _change(checkpoint, f"{writer}.{part}", lambda w: (w.T / factors).T)
    for name in readers:
        _change(checkpoint, name, lambda w: w * factors)


def _change(checkpoint: Checkpoint, name: str, change: Callable[[Floats], Floats]) -> None:
    weight = checkpoint.weights[name]
    checkpoint.weights[name] = replace(weight, load=lambda: change(weight.load()))
