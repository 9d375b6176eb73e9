"""Factors moved out of channels and into the matrices that read them: the function stays."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.quantize import Floats


def fold(checkpoint: Checkpoint, writer: str, readers: Sequence[str], factors: Floats) -> set[str]:
    """Divide channels by factors where they are written, and multiply with the factors where they are read.

    Args:
        checkpoint: Whose weights change.
        writer: The norm or matrix that writes the channels; its bias, if it has one, changes with its weight.
        readers: The matrices that are multiplied with them.
        factors: [channels], positive.

    Returns:
        The names of the weights that are not the checkpoint's any more.
    """
    if (bias := f"{writer}.bias") in checkpoint.weights:
        _change(checkpoint, bias, lambda values: values / factors)
    _change(checkpoint, f"{writer}.weight", lambda weight: (weight.T / factors).T)
    for reader in readers:
        _change(checkpoint, f"{reader}.weight", lambda weight: weight * factors)
    return {f"{name}.weight" for name in (writer, *readers)}


def balance(activations: Floats, weights: Floats) -> Floats:
    """The factors [channels] that leave weights and activations equally large, where both are any.

    How large all of them are together is left to whoever wrote the checkpoint: the factors' geometric mean is 1.
    """
    used = (activations > 0) & (weights > 0)
    factors = np.sqrt(np.where(used, activations, 1) / np.where(used, weights, 1))
    if used.any():
        factors[used] /= np.exp(np.log(factors[used]).mean())
    return factors.astype(np.float32)


def _change(checkpoint: Checkpoint, name: str, change: Callable[[Floats], Floats]) -> None:
    weight = checkpoint.weights[name]
    checkpoint.weights[name] = replace(weight, load=lambda: change(weight.load()))
