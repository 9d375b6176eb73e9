"""The angles of rotary positions, which every target has as a table."""

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import TextConfig


def rotary_angles(config: TextConfig) -> npt.NDArray[np.float32]:
    """[max_position_embeddings, head_dim / 2], in radians."""
    # float32 all the way, as transformers does it: at position 8,000 that shifts angles by up to 5e-4; but for the
    # power, whose last bit in float32 depends on the processor that numpy runs on
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    powers = np.float64(config.rope_theta) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    return np.outer(np.arange(config.max_position_embeddings, dtype=np.float32), frequencies)
