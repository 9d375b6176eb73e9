"""Rotary tables are transformers' and the same on every machine: an error in a frequency grows with the position."""

from typing import Any

import numpy as np
import pytest

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.bundle.reading import Section
from smolvlm_edge.bundle.rope_config import read_rope
from smolvlm_edge.export.architecture.vision_encoder import patch_positions
from smolvlm_edge.export.targets.rotary import inverse_frequencies, rotary_tables

POSITIONS = 4096
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 100,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS: list[dict[str, Any]] = [
    *({"rope_type": "default", "rope_theta": theta} for theta in (10_000, 100_000, 130_000, 500_000)),
    {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 1024},
    {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 512},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 3.3},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3, "original_max_position_embeddings": 1024},
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "beta_fast": 16,
        "beta_slow": 2,
        "truncate": False,
        "original_max_position_embeddings": 1024,
    },
]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:::transformers")
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda values: "-".join(map(str, values.values())))
def test_frequencies_are_transformers_to_the_bit(scaling: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")  # the [parity] extra
    from transformers import LlamaConfig  # noqa: PLC0415
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding  # noqa: PLC0415

    rope = {"rope_theta": 500_000.0, **scaling}
    reference = LlamaRotaryEmbedding(LlamaConfig(**SIZES, rope_parameters=dict(rope)))
    theta, read = read_rope(Section({**SIZES, "rope_parameters": rope}, "text_config"))
    config = TextConfig(**SIZES, rope_theta=theta, rope_scaling=read)

    np.testing.assert_array_equal(inverse_frequencies(config), reference.inv_freq.numpy())
    for ours, theirs in zip(
        rotary_tables(config), reference(torch.zeros(1), torch.arange(POSITIONS)[None]), strict=True
    ):
        np.testing.assert_allclose(ours, theirs[0, :, : ours.shape[1]].numpy(), rtol=0, atol=2e-7)


@pytest.mark.parity
def test_patch_positions_are_transformers_formula() -> None:
    """Written out here as in modeling_idefics3.py, for every side up to 256."""
    torch = pytest.importorskip("torch")
    if torch.backends.cpu.get_cpu_capability() not in {"AVX2", "DEFAULT"}:
        pytest.skip("torch.arange rounds by the width of the processor's vectors")
    shifted = []
    for side in range(1, 257):
        boundaries = torch.arange(1 / side, 1.0, 1 / side)
        coordinates = torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor([side]))
        buckets = torch.bucketize(torch.clamp(coordinates, max=1.0 - 1e-6), boundaries, right=True)
        expected = (buckets[:, None] * side + buckets[None, :]).reshape(-1).numpy()
        np.testing.assert_array_equal(patch_positions(side), expected, err_msg=str(side))
        if not np.array_equal(expected, np.arange(side**2)):
            shifted.append(side)
    assert {19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50} <= {*shifted}


@pytest.mark.parametrize("side", [26, 27, 32])
def test_released_models_have_patches_in_their_order(side: int) -> None:
    np.testing.assert_array_equal(patch_positions(side), np.arange(side**2))
