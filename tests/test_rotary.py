"""Rotary tables are transformers' and the same on every machine: an error in a frequency grows with the position."""

import numpy as np
import pytest

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.export.targets.rotary import rotary_angles


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:::transformers")
@pytest.mark.parametrize("theta", [10_000, 100_000, 130_000, 500_000])
def test_frequencies_are_transformers_to_the_bit(theta: int) -> None:
    pytest.importorskip("transformers")  # the [parity] extra
    from transformers import LlamaConfig  # noqa: PLC0415
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding  # noqa: PLC0415

    reference = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=128, num_attention_heads=2, rope_parameters={"rope_type": "default", "rope_theta": theta}
        )
    )
    config = TextConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        vocab_size=100,
        max_position_embeddings=8,
        rms_norm_eps=1e-5,
        rope_theta=theta,
    )
    np.testing.assert_array_equal(rotary_angles(config)[1], reference.inv_freq.numpy())
