"""Adapters merged while exporting: sums worked out by hand from the papers, names of trainers, refusals, damage.

tests/test_parity_adapters.py compares with PEFT itself.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from smolvlm_edge import IntegrityError, ModelNotFoundError, SmolEdgeError, UnsupportedModelError
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.export.adapter import Adapter
from smolvlm_edge.export.adapter_config import AdapterConfig
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.quantize import RECIPES

PREFIX = "base_model.model."
PROJ, TABLE, HEAD = "model.connector.modality_projection.proj", "model.text_model.embed_tokens", "lm_head"
KERNEL = "model.vision_model.embeddings.patch_embedding"
BASE = {
    f"{PROJ}.weight": [[1, 2, 3], [4, 5, 6]],
    f"{TABLE}.weight": [[1, 0], [0, 1], [2, 2]],
    f"{HEAD}.weight": [[1, 1], [2, 2], [3, 3]],
    f"{KERNEL}.weight": [[[[1, 2]]], [[[3, 4]]]],
    f"{KERNEL}.bias": [5, 6],
}
Q = "model.text_model.layers.1.self_attn.q_proj"  # [64, 64] in tiny-idefics3


def write(tensors: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    save_file({name: np.array(tensor, np.float32) for name, tensor in tensors.items()}, file)


def write_adapter(folder: Path, tensors: dict[str, Any], **config: object) -> Path:
    write(tensors, folder / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def lora(module: str = Q, rank: int = 2, size: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        f"{PREFIX}{module}.lora_A.weight": random.standard_normal((rank, size)),
        f"{PREFIX}{module}.lora_B.weight": random.standard_normal((size, rank)),
    }


@pytest.fixture
def merge(tmp_path: Path, tiny_checkpoints: dict[str, Path]):
    """merge(tensors, tied, **config): the base above with an adapter of these tensors in it."""

    def merge(tensors: dict[str, Any], *, tied: bool = False, **config: object) -> dict[str, list[Any]]:
        write({k: v for k, v in BASE.items() if not tied or k != f"{HEAD}.weight"}, tmp_path / "model.safetensors")
        adapter = write_adapter(
            tmp_path / "adapter", {PREFIX + name: tensor for name, tensor in tensors.items()}, **config
        )
        checkpoint = Checkpoint(tmp_path)
        model = ModelConfig.from_folder(tiny_checkpoints["tiny-smolvlm" if tied else "tiny-idefics3"])
        if tied:
            checkpoint.tie_head()
        Adapter.open(adapter).merge_into(checkpoint, model)
        return {name.removesuffix(".weight"): weight.load().tolist() for name, weight in checkpoint.weights.items()}

    return merge


# -- sums by hand ---------------------------------------------------------------------------------------------------


def test_lora(merge) -> None:
    """Scaling alpha / r = 2, and B A = [[2, 0, -2], [1, 0, -1]]."""
    tensors = {f"{PROJ}.lora_A.weight": [[1, 0, -1]], f"{PROJ}.lora_B.weight": [[2], [1]]}
    assert merge(tensors, lora_alpha=2)[PROJ] == [[5, 2, -1], [6, 5, 4]]


def test_rank_stabilised_lora(merge) -> None:
    """Scaling alpha / sqrt(r) = 6 / 2 = 3; the four ranks add up to B A = [[1, 0, 0], [0, 0, 4]]."""
    tensors = {
        f"{PROJ}.lora_A.weight": [[1, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 1]],
        f"{PROJ}.lora_B.weight": [[1, 0, 0, 0], [0, 1, 1, 1]],
    }
    assert merge(tensors, r=4, lora_alpha=6, use_rslora=True)[PROJ] == [[4, 2, 3], [4, 5, 18]]


def test_rank_and_alpha_by_pattern(merge) -> None:
    """The first pattern that is the end of the module's name decides: scaling 6 / 1."""
    tensors = {f"{PROJ}.lora_A.weight": [[1, 0, 0]], f"{PROJ}.lora_B.weight": [[1], [0]]}
    patterns = {"rank_pattern": {"modality": 7, "modality_proj.*.proj": 1}, "alpha_pattern": {"roj": 3, "proj": 6}}
    assert merge(tensors, r=9, **patterns)[PROJ] == [[7, 2, 3], [4, 5, 6]]


def test_dora(merge) -> None:
    """W + B A = [[3, 4, 0], [0, 0, 2]] has rows of length 5 and 2, which become 10 and 1 long."""
    tensors = {
        f"{PROJ}.lora_A.weight": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        f"{PROJ}.lora_B.weight": [[2, 2, -3], [-4, -5, -4]],
        f"{PROJ}.lora_magnitude_vector": [10, 1],
    }
    assert merge(tensors, r=3, lora_alpha=3, use_dora=True)[PROJ] == [[6, 8, 0], [0, 0, 1]]


def test_embedding(merge) -> None:
    """The update is (B A) transposed: row t gets A[:, t] times B."""
    tensors = {f"{TABLE}.lora_embedding_A": [[1, 0, -1]], f"{TABLE}.lora_embedding_B": [[2], [1]]}
    merged = merge(tensors)
    assert merged[TABLE] == [[3, 1], [0, 1], [0, 1]]
    assert merged[HEAD] == [[1, 1], [2, 2], [3, 3]]


def test_embedding_with_dora(merge) -> None:
    """The columns (1, 0, 2) and (0, 1, 2) plus the update become (0, 3, 4) and (0, 0, 2), then 10 and 1 long."""
    tensors = {
        f"{TABLE}.lora_embedding_A": [[-1, 3, 2], [0, -1, 0]],
        f"{TABLE}.lora_embedding_B": [[1, 0], [0, 1]],
        f"{TABLE}.lora_magnitude_vector": [10, 1],
    }
    assert merge(tensors, r=2, lora_alpha=2, use_dora=True)[TABLE] == [[0, 0], [6, 0], [8, 1]]


def test_convolution(merge) -> None:
    tensors = {f"{KERNEL}.lora_A.weight": [[[[1, -1]]]], f"{KERNEL}.lora_B.weight": [[[[2]]], [[[1]]]]}
    assert merge(tensors)[KERNEL] == [[[[3, 0]]], [[[4, 3]]]]


def test_biases(merge) -> None:
    """A bias of the adapter takes the place of the base's; that of lora_B is scaled and added."""
    update = {f"{KERNEL}.lora_A.weight": [[[[0, 0]]]], f"{KERNEL}.lora_B.weight": [[[[0]]], [[[0]]]]}
    assert merge({f"{KERNEL}.bias": [7, 8]})[f"{KERNEL}.bias"] == [7, 8]
    assert merge({f"{KERNEL}.base_layer.bias": [7, 8], **update})[f"{KERNEL}.bias"] == [7, 8]
    tensors = {**update, f"{KERNEL}.lora_B.bias": [1, -1]}
    assert merge(tensors, lora_bias=True, lora_alpha=3)[f"{KERNEL}.bias"] == [8, 3]


def test_saved_modules(merge) -> None:
    merged = merge({f"{TABLE}.weight": [[0, 0]] * 3, f"{PROJ}.weight": [[1, 1, 1]] * 2}, modules_to_save=["proj"])
    assert (merged[TABLE], merged[PROJ]) == ([[0, 0]] * 3, [[1, 1, 1]] * 2)


def test_new_tokens(merge) -> None:
    tensors = {f"{TABLE}.token_adapter.trainable_tokens_delta": [[8, 8], [9, 9]]}
    assert merge(tensors, trainable_token_indices=[2, 0])[TABLE] == [[9, 9], [0, 1], [8, 8]]


def test_a_tied_head_shares_new_tokens_and_nothing_else(merge) -> None:
    """So the head of the unmerged model computes: PEFT ties the new tokens, not LoRA and not a saved module."""
    table = BASE[f"{TABLE}.weight"]
    tokens = merge(
        {f"{TABLE}.token_adapter.trainable_tokens_delta": [[9, 9]]},
        tied=True,
        trainable_token_indices={"embed_tokens": [1]},
    )
    assert tokens[TABLE] == tokens[HEAD] == [[1, 0], [9, 9], [2, 2]]
    update = {f"{TABLE}.lora_embedding_A": [[1, 0, -1]], f"{TABLE}.lora_embedding_B": [[2], [1]]}
    assert merge(update, tied=True)[HEAD] == table
    assert merge({f"{TABLE}.weight": [[0, 0]] * 3}, tied=True)[HEAD] == table
    assert merge({f"{HEAD}.weight": [[0, 0]] * 3}, tied=True)[TABLE] == table


def test_a_grown_vocabulary(merge, tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    rows = [[1, 2]] * 5
    merged = merge({f"{TABLE}.weight": rows, f"{HEAD}.weight": rows})
    assert merged[TABLE] == merged[HEAD] == rows
    model = ModelConfig.from_folder(tiny_checkpoints["tiny-idefics3"])
    assert Adapter.open(tmp_path / "adapter").merge_into(Checkpoint(tmp_path), model).text.vocab_size == 5
    for name in (TABLE, HEAD):
        with pytest.raises(IntegrityError, match="save both"):
            merge({f"{name}.weight": rows})
    with pytest.raises(IntegrityError, match="save both"):
        merge({f"{TABLE}.weight": rows, f"{HEAD}.weight": rows[1:]})
    with pytest.raises(IntegrityError, match="shape"):
        merge({f"{TABLE}.weight": np.ones((0, 2)), f"{HEAD}.weight": np.ones((0, 2))})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), rank=st.integers(1, 9), alpha=st.floats(-1e3, 1e3), rslora=st.booleans())
def test_an_update_of_zero_changes_nothing(
    tiny_checkpoints: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    rank: int,
    alpha: float,
    rslora: bool,
) -> None:
    tensors = lora(rank=rank, seed=seed)
    tensors[f"{PREFIX}{Q}.lora_B.weight"] *= 0
    folder = tmp_path_factory.mktemp("adapter")
    adapter = Adapter.open(write_adapter(folder, tensors, r=rank, lora_alpha=alpha, use_rslora=rslora))
    checkpoint, base = (Checkpoint(tiny_checkpoints["tiny-idefics3"]) for _ in range(2))
    adapter.merge_into(checkpoint, ModelConfig.from_folder(tiny_checkpoints["tiny-idefics3"]))
    assert checkpoint.weights.keys() == base.weights.keys()
    for name, weight in base.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[name].load(), weight.load())


def test_nothing_is_read_before_it_is_needed(base: Path, tmp_path: Path) -> None:
    """An export holds one matrix at a time, so a merge must not hold the model."""
    checkpoint, adapter = Checkpoint(base), write_adapter(tmp_path / "adapter", lora(), r=2)
    Adapter.open(adapter).merge_into(checkpoint, ModelConfig.from_folder(base))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
        checkpoint.weights[f"{Q}.weight"].load()


# -- an export ------------------------------------------------------------------------------------------------------


def test_an_export_with_an_adapter_is_an_export_of_the_merged_checkpoint(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The merged checkpoint is written here with numpy, from the formula."""
    base = tiny_checkpoints["tiny-idefics3"]
    adapter = write_adapter(tmp_path / "my-adapter", lora(rank=4), r=4, lora_alpha=2, target_modules=["q_proj"])
    merged = Path(shutil.copytree(base, tmp_path / "merged"))
    tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(base / "model.safetensors").items()}
    lora_a, lora_b = (tensor.astype(np.float32) for tensor in lora(rank=4).values())
    tensors[f"{Q}.weight"] += 0.5 * lora_b @ lora_a
    save_file(tensors, merged / "model.safetensors")
    result = smol_edge("export", base, "--adapter", adapter, "--quant", "fp32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "my-adapter-fp32\n"
    expected = export_checkpoint(merged, tmp_path / "expected", RECIPES["fp32"])
    for file in expected.glob("*.data"):
        ours = np.fromfile(tmp_path / "my-adapter-fp32" / file.name, np.float32)
        np.testing.assert_allclose(ours, np.fromfile(file, np.float32), atol=1e-5, err_msg=file.name)


def test_the_bundle_names_its_adapter(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "my-adapter", lora(), r=2)
    out = export_checkpoint(tiny_checkpoints["tiny-idefics3"], tmp_path / "out", adapter=adapter)
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert json.loads((out / "bundle.json").read_text())["adapter"] == {"name": "my-adapter", "sha256": digest}
    bundle = Bundle.open(out)
    assert (bundle.source, bundle.adapter.name) == ("tiny-idefics3", "my-adapter")
    assert f"my-adapter (sha256 {digest})" in smol_edge("info", out).stdout


def test_the_tokenizer_of_the_adapter_is_taken(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Training may have added tokens or changed the template; what the adapter does not bring comes from the base."""
    base, adapter = tiny_checkpoints["tiny-idefics3"], write_adapter(tmp_path / "adapter", lora(), r=2)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))  # other bytes, same meaning
    shutil.copy(base / "tokenizer_config.json", adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'][0]['text'] }}")
    out = export_checkpoint(base, tmp_path / "out", adapter=adapter)
    assert (out / "tokenizer.json").read_bytes() == (adapter / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").is_file()
    assert not (out / "chat_template.json").exists(), "the template of the base would be read beside the adapter's"
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    (adapter / "tokenizer.json").unlink()
    (adapter / "chat_template.jinja").unlink()
    out = export_checkpoint(base, tmp_path / "out", adapter=adapter, force=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.parametrize(
    "prefix", ["base_model.model.", "base_model.model.model.", "", "model.", "module.base_model.model.", "_orig_mod."]
)
def test_prefixes_of_trainers(tiny_checkpoints: dict[str, Path], tmp_path: Path, prefix: str) -> None:
    tensors = {name.replace(PREFIX, prefix): tensor for name, tensor in lora().items()}
    adapter = Adapter.open(write_adapter(tmp_path / "adapter", tensors, r=2))
    assert list(adapter.modules) == [Q]


def test_a_minimal_old_configuration(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """PEFT's defaults hold for what is missing: r and lora_alpha are 8; a dead base path is never looked at."""
    folder = write_adapter(tmp_path / "adapter", lora(rank=8))
    values = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": "/home/somebody/my model/"}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    adapter = Adapter.open(folder)
    assert (adapter.config.rank(Q), adapter.config.scaling(Q)) == (8, 1)


# -- refusals -------------------------------------------------------------------------------------------------------


def assert_refused(base: Path, adapter: Path, error: type[SmolEdgeError], *words: str) -> None:
    with pytest.raises(error) as caught:
        export_checkpoint(base, adapter.parent / "out", adapter=adapter)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (adapter.parent / "out").exists()


@pytest.fixture
def base(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["tiny-idefics3"]


def test_a_base_without_a_head(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if k != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors")
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    assert_refused(folder, adapter, IntegrityError, "lm_head.weight is missing")
    adapter = write_adapter(tmp_path / "adapter", lora(module=HEAD), r=2)
    assert_refused(folder, adapter, IntegrityError, "nothing for base_model.model.lm_head.lora_A.weight")


def test_no_adapter_there(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_fails(smol_edge("export", base, "--adapter", tmp_path / "nowhere", "--out", out), 3, "nowhere", "adapter")
    assert_fails(smol_edge("export", base, "--adapter", base, "--out", out), 3, "whole checkpoint", "without --adapter")
    assert not list(tmp_path.iterdir())


def test_an_adapter_named_as_the_checkpoint(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    result = smol_edge("export", adapter, "--out", tmp_path / "out")
    assert_fails(result, 3, f"smol-edge export BASE --adapter {adapter}")


def test_an_adapter_without_tensors(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    (adapter / "adapter_model.safetensors").unlink()
    assert_refused(base, adapter, ModelNotFoundError, "adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"")
    assert_refused(base, adapter, UnsupportedModelError, "pickled", "PEFT")


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"peft_type": "PROMPT_TUNING"},
        {"peft_type": "ADALORA"},
        {"peft_type": "VERA"},
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"use_qalora": True},
        {"target_parameters": ["mlp.up_proj.weight"]},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"alora_invocation_tokens": [1]},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
    ],
    ids=str,
)
def test_unsupported_kinds(base: Path, tmp_path: Path, config: dict[str, object]) -> None:
    key = next(iter(config))
    assert_refused(base, write_adapter(tmp_path / "adapter", lora(), **config), UnsupportedModelError, key, "with PEFT")


def with_extra(**tensors: Any) -> dict[str, Any]:
    return {**lora(), **{PREFIX + name.replace("__", "."): np.ones(shape) for name, shape in tensors.items()}}


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        (with_extra(linear__weight=(128, 64)), {}, "nothing for base_model.model.linear.weight"),
        (with_extra(linear__weight=(128, 64), linear__bias=(128,)), {"modules_to_save": ["linear"]}, "linear.bias"),
        (lora(module=Q.replace("layers.1", "layers.9")), {}, "layers.9.self_attn.q_proj.lora_A.weight"),
        (lora(size=96), {}, "lora_A.weight has shape [2, 96], not [2, 64]"),
        (lora(), {"r": 8}, "lora_A.weight has shape [2, 64], not [8, 64]"),
        (dict([*lora().items()][:1]), {}, f"{Q}.lora_B.weight is missing"),
        (lora(), {"use_dora": True}, "lora_magnitude_vector is missing"),
        (with_extra(**{f"{Q}.lora_magnitude_vector": (64,)}), {}, "lora_magnitude_vector has no place"),
        (with_extra(**{f"{Q}.lora_B.bias": (64,)}), {"lora_bias": True}, "lora_B.bias has no place"),
        (with_extra(**{f"{Q}.lora_diag": (2,)}), {}, "lora_diag"),
        (with_extra(**{f"{Q}.weight": (64, 65)}), {}, "q_proj.weight has shape [64, 65], not [64, 64]"),
        (lora(module="model.text_model.norm"), {}, "lora_A.weight has no place"),
        (lora(), {"target_modules": ["k_proj"]}, f"leave out {Q}"),
        (lora(), {"target_modules": "q_proj"}, f"leave out {Q}"),
        (with_extra(**{f"{TABLE}.token_adapter.trainable_tokens_delta": (1, 64)}), {}, "trainable_tokens_delta"),
        (
            {f"{PREFIX}{TABLE}.token_adapter.trainable_tokens_delta": np.ones((1, 64))},
            {"trainable_token_indices": [100_000]},
            "trainable_tokens_delta",
        ),
    ],
    ids=range(16),
)
def test_adapters_that_do_not_fit(
    base: Path, tmp_path: Path, tensors: dict[str, Any], config: dict[str, object], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tensors, **{"r": 2, **config})
    assert_refused(base, adapter, IntegrityError, words)


def test_a_merge_that_overflows(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2, lora_alpha=1e300)
    assert_refused(base, adapter, IntegrityError, Q, "NaN or infinity after merging")


def test_an_output_of_length_zero_has_no_direction(merge) -> None:
    tensors = {f"{PROJ}.lora_A.weight": [[1, 2, 3]], f"{PROJ}.lora_B.weight": [[-1], [0]]}
    with pytest.raises(IntegrityError, match="NaN or infinity after merging"):
        merge({**tensors, f"{PROJ}.lora_magnitude_vector": [1, 1]}, use_dora=True)


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 7, 100, -50])
def test_cut_off_tensors(base: Path, tmp_path: Path, size: int) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert_refused(base, adapter, IntegrityError, "adapter_model.safetensors")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_tensors_never_crash_the_loader(base: Path, tmp_path: Path, data: st.DataObject) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    file = adapter / "adapter_model.safetensors"
    damaged = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    merge_or_refuse(base, adapter)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "(", "q_proj", "LORA", "all-linear", 10**400]),
    st.lists(st.one_of(st.none(), st.integers(-1, 400), st.text(max_size=3)), max_size=2),
    st.dictionaries(
        st.sampled_from(["(", "q_proj", "embed_tokens", ""]),
        st.one_of(st.none(), st.integers(), st.lists(st.integers())),
    ),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.dictionaries(
        st.sampled_from(
            [
                *(
                    "r",
                    "lora_alpha",
                    "rank_pattern",
                    "alpha_pattern",
                    "use_rslora",
                    "use_dora",
                    "lora_bias",
                    "peft_type",
                ),
                *("target_modules", "modules_to_save", "trainable_token_indices", "init_lora_weights", "use_qalora"),
            ]
        ),
        VALUES,
        min_size=1,
        max_size=3,
    )
)
def test_wrong_types_never_crash_the_loader(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    merge_or_refuse(base, write_adapter(tmp_path / "adapter", lora(), **{"r": 2, **config}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", pytest.param("[" * 100_000, id="deep")])
def test_unreadable_configuration(base: Path, tmp_path: Path, text: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", lora(), r=2)
    (adapter / "adapter_config.json").write_text(text)
    assert_refused(base, adapter, IntegrityError, "adapter_config.json")


def merge_or_refuse(base: Path, adapter: Path) -> None:
    checkpoint = Checkpoint(base)
    try:
        Adapter.open(adapter).merge_into(checkpoint, ModelConfig.from_folder(base))
        checkpoint.weights[f"{Q}.weight"].load()
    except SmolEdgeError as error:
        assert "\n" not in str(error).replace("\\n", "")  # noqa: PT017 - both outcomes are fine


@pytest.mark.parametrize("pattern", ["([a-z0-9._]+)+!", "(a|a|[a-z.]|[a-z0-9_.])*!", "(?:.+)+[A-Z]"])
def test_patterns_that_hang_python_are_answered(tmp_path: Path, pattern: str) -> None:
    """Catastrophic backtracking: `re` takes ages to say no."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": pattern}))
    assert not AdapterConfig.from_folder(tmp_path).targets("model.text_model.layers.11.self_attn.q_proj.and.so.on")


def test_a_pattern_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(*_: object, timeout: float) -> None:
        raise TimeoutError

    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "rank_pattern": {"x": 4}}))
    monkeypatch.setattr("smolvlm_edge.export.adapter_config.regex.fullmatch", too_long)
    with pytest.raises(IntegrityError, match="takes more than"):
        AdapterConfig.from_folder(tmp_path).rank("lm_head")


@pytest.mark.parametrize("pattern", ["(", "a)|(b", "[", "*", "a{2,1}", "x" * 20_000, "(?P<a>x)(?P<a>y)(?"])
@pytest.mark.parametrize("key", ["target_modules", "rank_pattern"])
def test_what_is_no_pattern_is_refused(tmp_path: Path, key: str, pattern: str) -> None:
    value: object = pattern if key == "target_modules" else {pattern: 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", key: value}))
    with pytest.raises(IntegrityError, match="regular expression"):
        AdapterConfig.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "module", "expected"),
    [
        (r"^(?!.*vision).*(?:q_proj|v_proj)$", "model.text_model.layers.0.self_attn.q_proj", True),
        (r"^(?!.*vision).*(?:q_proj|v_proj)$", "model.vision_model.encoder.layers.0.self_attn.q_proj", False),
        (r".*text_model.*\.(q|k|v|o)_proj", "model.text_model.layers.0.self_attn.o_proj", True),
    ],
)
def test_patterns_of_trainers_mean_what_they_mean_to_re(
    tmp_path: Path, pattern: str, module: str, expected: bool
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": pattern}))
    assert (
        AdapterConfig.from_folder(tmp_path).targets(module) is expected is (re.fullmatch(pattern, module) is not None)
    )
