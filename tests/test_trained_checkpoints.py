"""Checkpoints as trainers save them: other names for the same tensors, tied heads, resized vocabularies, more heads."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from safetensors.numpy import load_file, save_file

from smolvlm_edge import SmolEdgeError
from smolvlm_edge.export import export_checkpoint

WEIGHTS, CONFIG = "model.safetensors", "config.json"
TABLE, HEAD = "model.text_model.embed_tokens.weight", "lm_head.weight"

Tensors = dict[str, np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def save(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Save:
    """save(edit, **config): a copy of a tiny checkpoint with other tensors and other values in config.json."""

    def save(edit: Callable[[Tensors], Mapping[str, np.ndarray]] = dict, **config: object) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_checkpoints["tiny-idefics3"], folder)
        tensors = edit(load_file(folder / WEIGHTS))
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | config))
        return folder

    return save


def graphs(bundle: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in bundle.glob("*.onnx*")}


def assert_refused(folder: Path, exit_code: int, *words: str) -> None:
    out = folder.parent / "out"
    with pytest.raises(SmolEdgeError) as caught:
        export_checkpoint(folder, out, calibration=None)
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.removeprefix("model."),
        lambda name: f"model.{name}",
        lambda name: name if name == HEAD else f"model.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("text_model.", "text_model._orig_mod."),
    ],
    ids=["missing", "all doubled", "doubled", "PEFT", "DataParallel", "compiled", "both", "compiled decoder"],
)
def test_names_of_trainers(tiny_bundle, save: Save, tmp_path: Path, rename: Callable[[str], str]) -> None:
    folder = save(lambda tensors: {rename(name): tensor for name, tensor in tensors.items()})
    bundle = export_checkpoint(folder, tmp_path / "out", calibration=None)
    assert graphs(bundle) == graphs(tiny_bundle("tiny-idefics3", "int4"))


def test_one_tensor_under_two_names(save: Save) -> None:
    twice = save(lambda tensors: tensors | {TABLE.removeprefix("model."): tensors[TABLE] + 1})
    assert_refused(twice, 4, TABLE.removeprefix("model."), "two tensors")


def test_buffers_of_old_checkpoints_are_passed_over(tiny_bundle, save: Save, tmp_path: Path) -> None:
    """As in transformers: they follow from config.json, and may be of any type."""
    buffers = {
        "model.vision_model.embeddings.position_ids": np.arange(64)[None],
        "model.text_model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    }
    bundle = export_checkpoint(save(lambda tensors: tensors | buffers), tmp_path / "out", calibration=None)
    assert graphs(bundle) == graphs(tiny_bundle("tiny-idefics3", "int4"))


@pytest.mark.parametrize("missing", [HEAD, TABLE])
def test_a_tied_checkpoint_holds_either_matrix(save: Save, tmp_path: Path, missing: str) -> None:
    """Transformers ties both ways (tests/test_parity_checkpoints.py): the same as an untied one that holds it twice."""
    stored = ({HEAD, TABLE} - {missing}).pop()
    twice = export_checkpoint(
        save(lambda tensors: tensors | {missing: tensors[stored]}), tmp_path / "twice", calibration=None
    )
    tied = save(lambda tensors: {k: v for k, v in tensors.items() if k != missing}, tie_word_embeddings=True)
    assert graphs(export_checkpoint(tied, tmp_path / "tied", calibration=None)) == graphs(twice)


def test_a_tied_checkpoint_that_holds_two_matrices_keeps_both(tiny_bundle, save: Save, tmp_path: Path) -> None:
    bundle = export_checkpoint(save(tie_word_embeddings=True), tmp_path / "out", calibration=None)
    assert graphs(bundle) == graphs(tiny_bundle("tiny-idefics3", "int4"))


def test_an_untied_checkpoint_without_a_head(save: Save) -> None:
    """Transformers would make up a random head."""
    assert_refused(save(lambda tensors: {k: v for k, v in tensors.items() if k != HEAD}), 4, HEAD, "not tie")


@pytest.mark.parametrize("names", [(TABLE, HEAD), (TABLE,), (HEAD,)])
def test_a_vocabulary_that_the_configuration_does_not_know_of(save: Save, names: tuple[str, ...]) -> None:
    def grow(tensors: Tensors) -> Tensors:
        return tensors | {name: np.concatenate([tensors[name], tensors[name][:3]]) for name in names}

    assert_refused(save(grow), 4, names[0], "362 rows", "vocab_size", "359")


@pytest.mark.parametrize(
    "name", ["linear.weight", "model.custom_text_proj.weight", "model.text_model.layers.7.mlp.bias"]
)
def test_weights_of_an_unknown_part(save: Save, name: str) -> None:
    """A head that was trained would be lost silently."""
    assert_refused(save(lambda tensors: tensors | {name: np.ones((4, 64), np.float32)}), 1, name, "no part of")


def test_an_unmerged_adapter_inside(save: Save) -> None:
    def adapt(tensors: Tensors) -> Tensors:
        name = "model.text_model.layers.0.mlp.up_proj"
        weight = tensors.pop(f"{name}.weight")
        lora_a = np.ones((2, weight.shape[1]), np.float32)
        return tensors | {f"{name}.base_layer.weight": weight, f"{name}.lora_A.default.weight": lora_a}

    assert_refused(save(adapt), 1, "not merged", "--adapter")


# -- quantised, or in files of another kind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"load_in_8bit": True}}, "unknown"),
        ({"quantization_config": "nf4"}, "unknown"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
    ids=str,
)
def test_a_quantised_checkpoint(save: Save, config: dict[str, object], word: str) -> None:
    assert_refused(save(**config), 1, "quantised already", word, "--quant")


@pytest.mark.parametrize(
    "suffix", ["weight.absmax", "weight.quant_state.bitsandbytes__nf4", "SCB", "qweight", "qzeros", "scales", "biases"]
)
def test_quantised_weights_whose_configuration_does_not_say_so(save: Save, suffix: str) -> None:
    name = "model.text_model.layers.0.mlp.up_proj"

    def pack(tensors: Tensors) -> Tensors:
        packed = tensors.pop(f"{name}.weight").astype(np.float32).view(np.uint8)
        return tensors | {f"{name}.weight": packed, f"{name}.{suffix}": np.ones(4, np.uint8)}

    assert_refused(save(pack), 1, "quantised already", suffix, "original checkpoint")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("SmolVLM-256M-Instruct-Q8_0.gguf", ("GGUF", "safetensors")),
        ("pytorch_model.bin", ("pickled", "safetensors")),
        ("pytorch_model-00001-of-00002.bin", ("pickled", "safetensors")),
        ("checkpoint.pt", ("pickled",)),
        ("consolidated.00.pth", ("pickled",)),
        ("tf_model.h5", ("another framework",)),
        ("flax_model.msgpack", ("another framework",)),
        ("decoder_model_merged.onnx", ("exported already",)),
        ("openvino_language_model.xml", ("exported already",)),
    ],
)
@pytest.mark.parametrize("config", [True, False], ids=["beside config.json", "alone"])
def test_weights_of_another_format(save: Save, file: str, words: tuple[str, ...], config: bool) -> None:
    folder = save()
    (folder / WEIGHTS).rename(folder / file)
    if not config:
        (folder / CONFIG).unlink()
    assert_refused(folder, 1, file, *words)
    assert_refused(folder / file, 1, file, *words)


def test_safetensors_beside_pickled_weights_are_taken(save: Save, tmp_path: Path) -> None:
    folder = save()
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "training_args.bin").write_bytes(b"")
    assert (export_checkpoint(folder, tmp_path / "out", calibration=None) / "bundle.json").is_file()


def test_the_command_says_so_in_one_line(save: Save, tmp_path: Path) -> None:
    file = save() / "model.gguf"
    file.write_bytes(b"GGUF")
    assert_fails(smol_edge("export", file, "--out", tmp_path / "out"), 1, "model.gguf", "GGUF", "safetensors")
