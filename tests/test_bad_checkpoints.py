"""Damaged, lying, unsupported and interrupted: an export ends with one clear line and leaves nothing behind."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from smolvlm_edge import SmolEdgeError
from smolvlm_edge.export import export_checkpoint

WEIGHTS = "model.safetensors"
SHARDED = "tiny-smolvlm"


@pytest.fixture
def checkpoint(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_header(path: Path, edit: object) -> None:
    """Replace the JSON header of a safetensors file by what `edit` makes of it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def assert_export_fails(checkpoint: Path, exit_code: int, *words: str) -> None:
    out = checkpoint.parent / "out"
    assert_fails(smol_edge("export", checkpoint, "--out", out), exit_code, *words)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint"]


def test_no_such_folder(tmp_path: Path) -> None:
    assert_fails(smol_edge("export", tmp_path / "nowhere", "--out", tmp_path / "out"), 3, "nowhere")
    assert not list(tmp_path.iterdir())


def test_no_weights(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    assert_export_fails(checkpoint, 3, WEIGHTS)


def test_unknown_model_type(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", model_type="qwen2_vl")
    assert_export_fails(checkpoint, 1, "qwen2_vl", "idefics3")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "attention_bias", True),
        ("vision_config", "hidden_act", "quick_gelu"),
    ],
)
def test_unsupported_variant(checkpoint: Path, section: str, key: str, value: object) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    edit_json(checkpoint / "config.json", **{section: config[section] | {key: value}})
    assert_export_fails(checkpoint, 1, section)


@pytest.mark.parametrize("key", ["rope_theta", "hidden_size", "vocab_size", "rms_norm_eps"])
def test_missing_value_is_never_guessed(checkpoint: Path, key: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"].pop(key)
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert_export_fails(checkpoint, 4, key)


@pytest.mark.parametrize(
    ("section", "key", "value", "exit_code"),
    [
        ("text_config", "rope_theta", 10**400, 4),
        ("text_config", "rope_theta", float("inf"), 4),
        ("text_config", "max_position_embeddings", 10**15, 4),
        ("vision_config", "num_channels", 1, 1),
    ],
)
def test_values_out_of_reach(checkpoint: Path, section: str, key: str, value: float, exit_code: int) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    edit_json(checkpoint / "config.json", **{section: config[section] | {key: value}})
    assert_export_fails(checkpoint, exit_code, key)


def test_what_the_runtime_would_refuse_is_not_exported(checkpoint: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", image_std=[0, 0, 0])
    assert_export_fails(checkpoint, 4, "image_std")
    edit_json(checkpoint / "preprocessor_config.json", image_std=[0.5, 0.5, 0.5])
    (checkpoint / "chat_template.jinja").write_text("{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}")
    assert_export_fails(checkpoint, 4, "chat template")
    (checkpoint / "chat_template.jinja").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    assert_export_fails(checkpoint, 4, "tokenizer_config.json")


def test_missing_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    tensors.pop("model.text_model.layers.1.mlp.up_proj.weight")
    save_file(tensors, checkpoint / WEIGHTS)
    assert_export_fails(checkpoint, 4, "model.text_model.layers.1.mlp.up_proj.weight", "missing")


def test_misshaped_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    name = "model.vision_model.post_layernorm.weight"
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, checkpoint / WEIGHTS)
    assert_export_fails(checkpoint, 4, name, "shape")


def test_tensor_of_integers(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    name = "model.text_model.norm.weight"
    tensors[name] = np.zeros(tensors[name].shape, np.int8)
    save_file(tensors, checkpoint / WEIGHTS)
    assert_export_fails(checkpoint, 4, name, "I8")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(checkpoint: Path, value: float) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    name = "model.text_model.layers.0.mlp.up_proj.weight"
    tensors[name][3, 4] = value
    save_file(tensors, checkpoint / WEIGHTS)
    assert_export_fails(checkpoint, 4, name, "NaN")


def test_missing_shard(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoints[SHARDED], tmp_path / "checkpoint"))
    shard = min(folder.glob("*.safetensors"))
    shard.unlink()
    assert_export_fails(folder, 4, shard.name, "missing")


def test_index_that_points_outside(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoints[SHARDED], tmp_path / "checkpoint"))
    edit_json(folder / f"{WEIGHTS}.index.json", weight_map={"lm_head.weight": "../secret.safetensors"})
    assert_export_fails(folder, 4, "secret", "outside")


@pytest.mark.parametrize("offsets", [[0, 1 << 40], [-8, 64], [64, 8], [0, 8], ["a", "b"]])
def test_header_with_lies_about_offsets(checkpoint: Path, offsets: list[object]) -> None:
    def lie(header: dict[str, dict[str, object]]) -> None:
        next(entry for name, entry in header.items() if name != "__metadata__")["data_offsets"] = offsets

    rewrite_header(checkpoint / WEIGHTS, lie)
    assert_export_fails(checkpoint, 4, WEIGHTS)


def test_overlapping_tensors(checkpoint: Path) -> None:
    def overlap(header: dict[str, dict[str, object]]) -> None:
        first, second, *_ = (entry for name, entry in header.items() if name != "__metadata__")
        second["data_offsets"] = first["data_offsets"]

    rewrite_header(checkpoint / WEIGHTS, overlap)
    assert_export_fails(checkpoint, 4, WEIGHTS)


@pytest.mark.parametrize("claimed", [4 << 30, (1 << 64) - 1, 1 << 20, 3])
def test_header_of_a_wrong_length(checkpoint: Path, claimed: int) -> None:
    path = checkpoint / WEIGHTS
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:])
    assert_export_fails(checkpoint, 4, WEIGHTS)


@pytest.mark.parametrize("size", [0, 4, 100, -100])
def test_cut_off_weights(checkpoint: Path, size: int) -> None:
    path = checkpoint / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert_export_fails(checkpoint, 4, WEIGHTS)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model_type": 3}', pytest.param("[" * 100_000, id="deep")])
def test_unreadable_config(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    assert_export_fails(checkpoint, 4, "config.json")


def test_tiles_of_another_size(checkpoint: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", max_image_size={"longest_edge": 128})
    assert_export_fails(checkpoint, 4, "128")


def test_unknown_resampling_filter(checkpoint: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", resample=9)
    assert_export_fails(checkpoint, 4, "resample")


def test_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert_export_fails(checkpoint, 4, "tokenizer.json")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_weights_never_crash_the_loader(checkpoint: Path, data: st.DataObject) -> None:
    """Any damage to the header either goes unnoticed because it changes nothing, or is reported as damage."""
    path = checkpoint / WEIGHTS
    original = path.read_bytes()
    (length,) = struct.unpack("<Q", original[:8])
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 8 + length))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    out = checkpoint.parent / "out"
    try:
        export_checkpoint(checkpoint, out, force=True)
    except SmolEdgeError:
        assert not out.exists()
    finally:
        path.write_bytes(original)
        shutil.rmtree(out, ignore_errors=True)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(
        st.sampled_from(["text_config", "vision_config", "rope_theta", "hidden_size", "num_attention_heads"]),
        max_size=2,
    ),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=3), st.lists(st.none(), max_size=1)
    ),
)
def test_fuzzed_config_never_crashes_the_loader(checkpoint: Path, path: list[str], value: object) -> None:
    original = (checkpoint / "config.json").read_text()
    config = json.loads(original)
    section = config
    for key in path[:-1]:
        section = section.setdefault(key, {}) if isinstance(section.get(key, {}), dict) else config
    section[path[-1] if path else "scale_factor"] = value
    (checkpoint / "config.json").write_text(json.dumps(config))
    out = checkpoint.parent / "out"
    try:
        export_checkpoint(checkpoint, out)
    except SmolEdgeError:
        assert not out.exists()
    finally:
        (checkpoint / "config.json").write_text(original)
        shutil.rmtree(out, ignore_errors=True)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]
