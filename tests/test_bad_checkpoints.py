"""Damaged, lying, unsupported and interrupted: an export ends with one clear line and leaves nothing behind."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from conftest import CHECKPOINTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from smolvlm_edge import IntegrityError, SmolEdgeError
from smolvlm_edge.bundle.config import ImageConfig, ModelConfig, VideoConfig
from smolvlm_edge.bundle.reading import read_bytes, read_json
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
        ("text_config", "rope_scaling", {"rope_type": "longrope", "factor": 8.0}),
        ("text_config", "rope_parameters", {"rope_type": "proportional", "rope_theta": 1e4}),
        ("text_config", "rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("text_config", "partial_rotary_factor", 0.25),
        ("text_config", "sliding_window", 128),
        ("text_config", "attention_chunk_size", 64),
        ("text_config", "layer_types", ["full_attention", "sliding_attention", "full_attention"]),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "attention_bias", True),
        ("vision_config", "hidden_act", "quick_gelu"),
    ],
)
def test_unsupported_variant(checkpoint: Path, section: str, key: str, value: object) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    edit_json(checkpoint / "config.json", **{section: config[section] | {key: value}})
    assert_export_fails(checkpoint, 1, section)


def test_windows_as_wide_as_the_context_change_nothing(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    full = {"sliding_window": 1024, "layer_types": ["full_attention"] * 3, "attention_chunk_size": None}
    edit_json(checkpoint / "config.json", text_config=config["text_config"] | full)
    assert ModelConfig.from_folder(checkpoint).text.max_position_embeddings == 1024


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
        ("text_config", "head_dim", 1 << 20, 4),
        ("text_config", "head_dim", 15, 4),
        ("text_config", "head_dim", "16", 4),
        ("text_config", "rope_scaling", {"rope_type": "llama3", "factor": 8.0}, 4),
        ("text_config", "rope_scaling", {"rope_type": "linear", "factor": 0}, 4),
        ("text_config", "rope_scaling", {"rope_type": "yarn", "factor": True}, 4),
        ("text_config", "rope_scaling", [1, 2], 4),
        ("vision_config", "patch_size", 0, 4),
        ("vision_config", "patch_size", 65, 4),
        ("vision_config", "patch_size", [8], 4),
        ("vision_config", "image_size", 1 << 20, 4),
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_image_size": {"longest_edge": 1}}, ("tiles",)),
        ({"max_image_size": {"longest_edge": 1 << 20}}, ("longest_edge",)),
        ({"max_image_size": {"longest_edge": 0}}, ("longest_edge",)),
        ({"max_image_size": 64}, ("max_image_size",)),
        ({"size": {"longest_edge": 1 << 20}}, ("longest_edge",)),
        ({"image_mean": [10**400, 0, 0]}, ("image_mean",)),
        ({"image_mean": ["0.5", 0, 0]}, ("image_mean",)),
        ({"image_std": [float("nan")] * 3}, ("image_std",)),
        ({"rescale_factor": float("inf")}, ("rescale_factor",)),
        ({"do_image_splitting": "no"}, ("do_image_splitting",)),
        ({"resample": 6}, ("resample",)),
    ],
)
def test_absurd_picture_sizes_are_refused_before_anything_is_allocated(
    checkpoint: Path, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    edit_json(checkpoint / "preprocessor_config.json", **changes)
    for config in (ImageConfig, VideoConfig):
        with pytest.raises(IntegrityError) as error:
            config.from_folder(checkpoint)
        assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_seq_len": 4},
        {"vision": {"image_size": 64}},
        {"vision": None},
        {"text": []},
        {"eos_token_ids": ["</s>"]},
        {"eos_token_ids": {"a": 1}},
        {"scale_factor": 0},
        {"scale_factor": 3},
        {"image_token_id": True},
        {"model_type": 5},
        {"generation": {"top_k": "40"}},
    ],
)
def test_a_bundles_model_section_is_checked_as_a_checkpoint_is(
    tiny_checkpoints: dict[str, Path], changes: dict[str, object]
) -> None:
    values = json.loads(json.dumps(ModelConfig.from_folder(tiny_checkpoints["tiny-idefics3"]).to_dict()))
    assert ModelConfig.from_dict(values).to_dict()
    with pytest.raises(IntegrityError, match=r"bundle\.json"):
        ModelConfig.from_dict({**values, **changes})


def test_files_that_never_end_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    for place in (tmp_path / "fifo.json", Path("/dev/zero"), tmp_path, tmp_path / "a\0b", tmp_path / "missing"):
        with pytest.raises(IntegrityError):
            read_json(place)
    (tmp_path / "large").write_bytes(bytes(101))
    assert len(read_bytes(tmp_path / "large", 101)) == 101
    with pytest.raises(IntegrityError, match="more than 100 bytes"):
        read_bytes(tmp_path / "large", 100)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", '"x"', "{", b"\xff{}", "9" * 5000])
def test_json_of_any_shape_ends_with_one_line(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(IntegrityError) as error:
        read_json(tmp_path / "config.json")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repetition_penalty": 0}, ("repetition_penalty",)),
        ({"suppress_tokens": [359]}, ("suppress_tokens", "359")),
        ({"bad_words_ids": [[]]}, ("bad_words_ids",)),
        ({"top_p": "0.9"}, ("top_p",)),
        ({"eos_token_id": "</s>"}, ("eos_token_id",)),
        ({"stop_strings": [5]}, ("stop_strings",)),
        ({"sequence_bias": {"(1, 2)": 1.0}}, ("sequence_bias",)),
        ({"sequence_bias": [[[1, 359], 1.0]]}, ("sequence_bias", "359")),
        ({"sequence_bias": [[[1], "a"]]}, ("sequence_bias",)),
        ({"min_new_tokens": "5"}, ("min_new_tokens",)),
        ({"exponential_decay_length_penalty": [1]}, ("exponential_decay_length_penalty",)),
        ({"typical_p": 0}, ("typical_p",)),
    ],
)
def test_senseless_generation_defaults(checkpoint: Path, changes: dict[str, object], words: tuple[str, ...]) -> None:
    edit_json(checkpoint / "generation_config.json", **changes)
    assert_export_fails(checkpoint, 4, "generation_config.json", *words)


def test_errors_name_files_that_are_there(checkpoint: Path) -> None:
    """Not those of the hidden folder that is gone."""
    (checkpoint / "tokenizer.json").write_text("{}")
    assert_export_fails(checkpoint, 4, str(checkpoint / "tokenizer.json"))
    shutil.copy(CHECKPOINTS / "tiny-idefics3" / "tokenizer.json", checkpoint)
    (checkpoint / "chat_template.json").write_text('{"chat_template": 5}')
    assert_export_fails(checkpoint, 4, f"{checkpoint}:", "chat template")
    (checkpoint / "tokenizer_config.json").write_text("[]")
    assert_export_fails(checkpoint, 4, str(checkpoint / "tokenizer_config.json"))


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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
