"""`--vision int8-static`: activations of the vision encoder rounded with scales that calibration found."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import given
from hypothesis import strategies as st
from rig import Rig
from test_targets import onnx_matrices, openvino_matrices

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import INT8_BLOCKS, RECIPES, Format, Recipe, byte_grid, with_vision

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
STATIC = with_vision(RECIPES["int8"], "int8-static")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(
        CHECKPOINT, tmp_path_factory.mktemp("static") / "out", STATIC, targets=("onnx", "openvino")
    )


def features(bundle: Path, engine: str) -> np.ndarray:
    """What a vision encoder makes of a picture, [tokens, hidden]."""
    rig = Rig(bundle, engine)
    size = rig.model.bundle.model.vision.image_size
    pixel_values = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    made = rig.connector(rig.vision_encoder(pixel_values))[0]
    rig.close()
    return made


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_image_features_stay(bundle: Path, tiny_bundle, engine: str) -> None:
    assert error(features(bundle, engine), features(tiny_bundle("tiny-idefics3", "fp32"), "onnxruntime")) < 0.05


def test_both_engines_round_alike(bundle: Path) -> None:
    """The same integers; what is left is bf16 around them, where the processor has it."""
    expected, found = onnx_matrices(bundle), openvino_matrices(bundle)
    static = [name for name in expected if "vision_model" in name]
    assert len(static) == 6 * Bundle.open(bundle).model.vision.num_hidden_layers
    for name in static:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert error(features(bundle, "openvino"), features(bundle, "onnxruntime")) < 0.02


def test_a_recipe_remembers_what_was_seen(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    seen = [format_ for _, format_ in manifest["recipe"]["rules"] if format_.get("low") is not None]
    assert all(each["low"] <= 0 <= each["high"] and each["low"] < each["high"] for each in seen)
    recipe = Recipe.from_dict(manifest["recipe"])
    again = export_checkpoint(CHECKPOINT, tmp_path / "again", recipe)
    assert (again / "vision_encoder.onnx").read_bytes() == (bundle / "vision_encoder.onnx").read_bytes()
    assert (again / "vision_encoder.onnx.data").read_bytes() == (bundle / "vision_encoder.onnx.data").read_bytes()


def test_nothing_to_look_at(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("No pictures here.")
    for calibrate in ("none", tmp_path / "texts"):
        options = ("--quant", "int8", "--vision", "int8-static", "--calibrate", calibrate)
        result = smol_edge("export", CHECKPOINT, *options, "--out", out)
        assert_fails(result, 2, "calibrate with a set that has pictures")
        assert not out.exists()


def test_static_matrices_of_the_decoder_are_refused(tmp_path: Path) -> None:
    file, recipe = tmp_path / "recipe.json", Recipe("all", (("*proj*", Format("static", bits=8)), ("*", INT8_BLOCKS)))
    file.write_text(json.dumps(recipe.to_dict()))
    result = smol_edge("export", CHECKPOINT, "--recipe", file, "--out", tmp_path / "out")
    assert_fails(result, 2, "static is for the vision encoder")


def test_info_counts_matrices(bundle: Path) -> None:
    result = smol_edge("info", bundle)
    assert (
        "12 matrices: int8 weights with a scale per row, int8 activations with a scale known in advance"
        in result.stdout
    )


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_the_grid_of_a_range(a: float, b: float) -> None:
    """0 is a step of its own, and no value of the range is further from a step than half of one."""
    low, high = min(a, b), max(a, b)
    scale, zero_point = byte_grid(low, high)
    values = np.linspace(low, high, 97)
    codes = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    assert np.abs((codes - zero_point) * scale - values).max() <= scale * 1.001
