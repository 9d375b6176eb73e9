"""Rotary positions, which every target has as a table of cosines and one of sines.

Formulas of transformers 5.23 (modeling_rope_utils.py), in float32 in its order: at position 8,000 that shifts angles by
up to 5e-4. Powers are the exception: their last bit in float32 depends on the processor that numpy runs on.
"""

import math

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.bundle.rope_config import RopeScaling

Floats = npt.NDArray[np.float32]
BETA_FAST, BETA_SLOW = 32.0, 1.0  # yarn's, where a checkpoint names none


def rotary_tables(config: TextConfig) -> tuple[Floats, Floats]:
    """Cosines and sines, each [max_position_embeddings, head_dim / 2]."""
    angles, scale = rotary_angles(config), np.float32(attention_factor(config.rope_scaling))
    return np.cos(angles) * scale, np.sin(angles) * scale


def rotary_angles(config: TextConfig) -> Floats:
    """[max_position_embeddings, head_dim / 2], in radians."""
    return np.outer(np.arange(config.max_position_embeddings, dtype=np.float32), inverse_frequencies(config))


def inverse_frequencies(config: TextConfig) -> Floats:
    """[head_dim / 2], in radians per position."""
    scaling, dim = config.rope_scaling, config.head_dim
    theta = config.rope_theta
    if scaling is not None and scaling.rope_type == "dynamic" and dim > 2:
        # the base grows with a prompt beyond the context, and longer ones than that are refused
        theta *= (scaling.factor * 1.0 - (scaling.factor - 1)) ** (dim / (dim - 2))
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = (np.float64(theta) ** exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1) / powers
    match scaling:
        case RopeScaling(rope_type="linear"):
            return frequencies / np.float32(scaling.factor)
        case RopeScaling(rope_type="llama3"):
            return _llama3(frequencies, scaling)
        case RopeScaling(rope_type="yarn"):
            return _yarn(powers, scaling, theta)
        case _:
            return frequencies


def attention_factor(scaling: RopeScaling | None) -> float:
    """What cosines and sines are multiplied by; other than 1 for yarn alone."""
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling.factor, scaling.mscale) / _mscale(scaling.factor, scaling.mscale_all_dim)
    return _mscale(scaling.factor, 1.0)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _llama3(frequencies: Floats, scaling: RopeScaling) -> Floats:
    """Long waves are stretched by the factor, short ones stay, and those between are blended."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    assert low is not None
    assert high is not None
    length, factor, one = scaling.original_max_position_embeddings, np.float32(scaling.factor), np.float32(1)
    waves = one / frequencies * np.float32(2 * math.pi)
    scaled = np.where(waves > length / low, frequencies / factor, frequencies)
    smooth = (one / waves * np.float32(length) - np.float32(low)) / np.float32(high - low)
    blended = (one - smooth) * scaled / factor + smooth * scaled
    is_between = ~(waves < length / high) & ~(waves > length / low)
    return np.where(is_between, blended, scaled)


def _yarn(powers: Floats, scaling: RopeScaling, theta: float) -> Floats:
    """Dimensions that turn often stay, those that turn seldom are stretched, and a ramp lies between (2309.00071)."""
    dim, length, one = 2 * len(powers), scaling.original_max_position_embeddings, np.float32(1)

    def dimension(rotations: float) -> float:
        return (dim * math.log(length / (rotations * 2 * math.pi))) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast or BETA_FAST), dimension(scaling.beta_slow or BETA_SLOW)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # as there, against a division by zero
    ramp = np.clip((np.arange(len(powers), dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    kept = one - ramp
    return one / (np.float32(scaling.factor) * powers) * (one - kept) + one / powers * kept
