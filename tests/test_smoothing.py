"""Outlier channels of the vision encoder: the function stays, and int8 activations keep it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rig import Rig
from safetensors.numpy import load_file, save_file

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES, with_vision

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
FACTOR = 40


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same function in which some channels of every layer are 40 times larger than the others."""
    folder = tmp_path_factory.mktemp("uneven")
    for file in CHECKPOINT.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = {name: weight.astype(np.float32) for name, weight in load_file(folder / "model.safetensors").items()}
    random = np.random.default_rng(0)
    for norm in [
        name for name in weights if "vision_model.encoder" in name and "layer_norm" in name and "weight" in name
    ]:
        channels = random.choice(len(weights[norm]), 3, replace=False)
        weights[norm][channels] *= FACTOR
        weights[norm.replace("weight", "bias")][channels] *= FACTOR
        layer, _, which = norm.removesuffix(".weight").rpartition(".")
        readers = (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if which == "layer_norm1" else ("mlp.fc1",)
        )
        for reader in readers:
            weights[f"{layer}.{reader}.weight"][:, channels] /= FACTOR
        if which == "layer_norm1":
            weights[f"{layer}.self_attn.v_proj.weight"][channels] *= FACTOR
            weights[f"{layer}.self_attn.v_proj.bias"][channels] *= FACTOR
            weights[f"{layer}.self_attn.out_proj.weight"][:, channels] /= FACTOR
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def features(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """features(quant, calibration, vision): features of two pictures, [tokens, hidden]."""

    def of(quant: str, calibration: str | None = None, vision: str | None = None) -> np.ndarray:
        out, recipe = tmp_path_factory.mktemp("bundle") / "bundle", RECIPES[quant]
        recipe = recipe if vision is None else with_vision(recipe, vision)
        rig = Rig(export_checkpoint(uneven, out, recipe, calibration=calibration))
        size = rig.model.bundle.model.vision.image_size
        random = np.random.default_rng(1)
        smooth = np.linspace(-1, 1, size, dtype=np.float32)
        pictures = np.stack([random.uniform(-1, 1, (3, size, size)), np.broadcast_to(smooth, (3, size, size))])
        made = np.concatenate([rig.connector(rig.vision_encoder(p[None].astype(np.float32)))[0] for p in pictures])
        rig.close()
        return made

    return of


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


def test_smoothing_keeps_what_outlier_channels_would_take(features: Callable[..., np.ndarray]) -> None:
    expected = features("fp32")
    smoothed, plain = (lowest_cosine(features("int8", calibration), expected) for calibration in ("bundled", None))
    assert smoothed > 0.999
    assert plain < 0.99


def test_one_scale_for_all_tokens_needs_smoothing_too(features: Callable[..., np.ndarray]) -> None:
    assert lowest_cosine(features("int8", "bundled", "int8-static"), features("fp32")) > 0.99
