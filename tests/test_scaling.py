"""Scaled columns: the function stays, what is scaled is what costs most, and the quality table sees through it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.export.architecture.decoder import PREFIX
from smolvlm_edge.export.calibration import LOGITS, DecoderLayers
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint
from smolvlm_edge.export.folding import balance
from smolvlm_edge.export.scaling import scale_columns
from smolvlm_edge.quality.tensors import tensor_errors

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
TARGETS = {"vision": "onnx", "decoder": "onnx"}


@pytest.fixture
def layers(tmp_path: Path) -> DecoderLayers:
    return DecoderLayers(Checkpoint(CHECKPOINT), ModelConfig.from_folder(CHECKPOINT), tmp_path, threads=2)


def embedded(layers: DecoderLayers) -> np.ndarray:
    text = layers.config.text
    ids = np.random.default_rng(0).integers(0, text.vocab_size, 200)
    return layers.checkpoint.weight(TOKEN_TABLE, text.vocab_size, text.hidden_size).load()[ids]


def logits(layers: DecoderLayers) -> np.ndarray:
    hidden = [embedded(layers)]
    for index in range(len(layers)):
        hidden = layers.advance(index, hidden, {})
    with layers.open(len(layers), (LOGITS,), {}) as run:
        return run(hidden[0])[LOGITS]


def test_the_function_stays(layers: DecoderLayers) -> None:
    before = logits(layers)
    rescaled = scale_columns(layers, [embedded(layers)])
    np.testing.assert_allclose(logits(layers), before, atol=1e-4 * np.abs(before).max())
    original = Checkpoint(CHECKPOINT).weights
    changed = {
        name for name, weight in layers.checkpoint.weights.items() if (weight.load() != original[name].load()).any()
    }
    assert changed <= set(rescaled)
    assert f"{PREFIX}.layers.0.mlp.down_proj.weight" in changed


@given(st.integers(0, 1000), st.integers(2, 50))
def test_balanced_factors_move_half_of_what_stands_out(seed: int, channels: int) -> None:
    random = np.random.default_rng(seed)
    activations, weights = random.lognormal(size=channels), random.lognormal(size=channels)
    activations[0] = 0
    factors = balance(activations, weights)
    assert factors[0] == 1, "a channel that nothing comes through stays as it is"
    shares = (activations / factors)[1:] / (weights * factors)[1:]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-4)
    assert np.prod(factors[1:], dtype=float) == pytest.approx(1, rel=1e-3)


def test_errors_of_rescaled_matrices_are_those_of_rounding(tiny_bundle, tmp_path: Path) -> None:
    own_set = tmp_path / "set"
    own_set.mkdir()
    (own_set / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    scaled, plain = (
        Bundle.open(export_checkpoint(CHECKPOINT, tmp_path / name, calibration=calibration))
        for name, calibration in (("scaled", own_set), ("plain", None))
    )
    reference = Bundle.open(tiny_bundle("tiny-idefics3", "fp32"))
    errors = [
        {each.name: each.relative_error for each in tensor_errors(b, reference, TARGETS)} for b in (scaled, plain)
    ]
    assert f"{PREFIX}.layers.0.mlp.up_proj.weight" in scaled.recipe["rescaled"]
    for name, error in errors[0].items():
        assert error == pytest.approx(errors[1][name], rel=0.5), name
