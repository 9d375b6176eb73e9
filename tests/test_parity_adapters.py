"""Merged adapters against PEFT's own merge, tensor by tensor, for every variation that PEFT saves for these models."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.adapter import Adapter
from smolvlm_edge.export.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore:::peft"),
]

NAMES = ("tiny-idefics3", "tiny-smolvlm")
TOLERANCE = 1e-5
PUBLISHED = sorted((Path(__file__).parent / "adapters").glob("*.json"))
"""adapter_config.json of published adapters, under the names of their repositories."""


@dataclass(frozen=True)
class Variation:
    """Arguments of LoraConfig, and how the adapter is saved."""

    config: dict[str, Any]
    dtype: str = "float32"
    tied_base: bool = False
    """Whether PEFT's merge is right on a tied base; where it is not, it is compared on an untied copy."""
    changed: tuple[str, ...] = ()
    """Tensors that the adapter must change, so that a test cannot pass by doing nothing."""


Q = "model.text_model.layers.1.self_attn.q_proj.weight"
TABLE, HEAD = "model.text_model.embed_tokens.weight", "lm_head.weight"
BIAS = "model.vision_model.encoder.layers.0.self_attn.q_proj.bias"
NORM_BIAS = "model.vision_model.encoder.layers.0.layer_norm1.bias"
TOWER = r".*vision_model.*(q_proj|fc1)"
ATTENTION = ["self_attn.q_proj"]

VARIATIONS = {
    # the shape of HuggingFaceTB/SmolVLM-Instruct-DPO: TRL's defaults for r and alpha
    "SmolVLM-Instruct-DPO": Variation(
        {"target_modules": "all-linear", "r": 16, "lora_alpha": 32},
        "bfloat16",
        changed=(Q, "model.connector.modality_projection.proj.weight", BIAS.replace("bias", "weight")),
    ),
    "rank": Variation({"target_modules": ["o_proj", "gate_proj"], "r": 3, "lora_alpha": 7}),
    "regex": Variation({"target_modules": r"model.text_model.layers.\d+.self_attn.(q_proj|v_proj)"}, changed=(Q,)),
    "half": Variation({"target_modules": ATTENTION}, "float16", changed=(Q,)),
    "rslora": Variation({"target_modules": ATTENTION, "r": 5, "lora_alpha": 3, "use_rslora": True}, changed=(Q,)),
    "patterns": Variation(
        {
            "target_modules": "all-linear",
            "rank_pattern": {"layers.0.self_attn.q_proj": 7, "q_proj": 5, r"text_model.layers.\d+.mlp.up_proj": 1},
            "alpha_pattern": {"^model.vision_model.*fc2": 1, "o_proj": 31, "proj": 3},
        },
        changed=(Q,),
    ),
    "rslora with patterns": Variation(
        {"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 3}}
    ),
    "dora": Variation({"target_modules": "all-linear", "use_dora": True}, changed=(Q,)),
    "dora with rslora": Variation({"target_modules": ["q_proj", "fc2"], "use_dora": True, "use_rslora": True}),
    "fan_in_fan_out": Variation({"target_modules": ["q_proj", "up_proj"], "fan_in_fan_out": True, "use_dora": True}),
    "layers_to_transform": Variation({"target_modules": ["q_proj"], "layers_to_transform": [1]}, changed=(Q,)),
    "gaussian": Variation({"target_modules": ATTENTION, "init_lora_weights": "gaussian"}),
    "orthogonal": Variation({"target_modules": ATTENTION, "init_lora_weights": "orthogonal"}),
    "convolution": Variation({"target_modules": ["patch_embedding", "position_embedding"]}),
    "convolution with dora": Variation({"target_modules": ["patch_embedding", "position_embedding"], "use_dora": True}),
    "bias all": Variation({"target_modules": TOWER, "bias": "all"}, changed=(BIAS, NORM_BIAS)),
    "bias lora_only": Variation({"target_modules": TOWER, "bias": "lora_only"}, changed=(BIAS,)),
    "lora_bias": Variation({"target_modules": TOWER, "lora_bias": True, "use_rslora": True}, changed=(BIAS,)),
    "lora_bias of a convolution": Variation({"target_modules": ["patch_embedding"], "lora_bias": True}),
    "lora_bias beside bias": Variation({"target_modules": TOWER, "lora_bias": True, "bias": "all"}, changed=(BIAS,)),
    "table": Variation({"target_modules": ["embed_tokens"]}, changed=(TABLE,)),
    "table with dora": Variation({"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}, changed=(TABLE, Q)),
    "head": Variation({"target_modules": ["lm_head"]}, changed=(HEAD,)),
    "table and head": Variation(
        {"target_modules": ["lm_head", "embed_tokens"], "use_dora": True}, changed=(TABLE, HEAD)
    ),
    "saved connector": Variation({"target_modules": ATTENTION, "modules_to_save": ["connector"]}),
    "saved norm": Variation({"target_modules": ATTENTION, "modules_to_save": ["norm", "layer_norm1"]}),
    "saved table": Variation({"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]}, changed=(TABLE,)),
    "saved head": Variation({"target_modules": ATTENTION, "modules_to_save": ["lm_head"]}, changed=(HEAD,)),
    "saved both": Variation(
        {"target_modules": "all-linear", "modules_to_save": ["lm_head", "embed_tokens"]}, changed=(TABLE, HEAD)
    ),
    "new tokens": Variation(
        {"target_modules": ATTENTION, "trainable_token_indices": [9, 2]}, tied_base=True, changed=(TABLE,)
    ),
    "new tokens of the head": Variation(
        {"target_modules": ATTENTION, "trainable_token_indices": {"lm_head": [4]}}, changed=(HEAD,)
    ),
    "new tokens of both": Variation(
        {"target_modules": ATTENTION, "trainable_token_indices": {"embed_tokens": [1, 5], "lm_head": [2]}},
        changed=(TABLE, HEAD),
    ),
}
TIED = {
    "tied modules_to_save": Variation(
        {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        tied_base=True,
        changed=(TABLE, HEAD),
    ),
}


@pytest.fixture(scope="module")
def peft() -> Any:
    return pytest.importorskip("peft")


@pytest.fixture(scope="module")
def base_model(tiny_checkpoints: dict[str, Path]) -> Callable[..., Any]:
    """base_model(name, untied): a fresh transformers model in float32."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

    def load(name: str, *, untied: bool = False) -> Any:
        model = transformers.AutoModelForImageTextToText.from_pretrained(tiny_checkpoints[name], dtype=torch.float32)
        if untied and model.config.tie_word_embeddings:  # as PEFT advises before merging
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.config.tie_word_embeddings = False
        return model.eval()

    return load


def train(peft: Any, model: Any, config: Any, folder: Path, dtype: str = "float32") -> Path:
    """Save an adapter whose every trainable tensor is random."""
    import torch

    torch.manual_seed(5)
    adapted = peft.get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))  # in place: PEFT's tied parameters share memory
            if dtype != "float32":
                parameter.data = parameter.data.to(getattr(torch, dtype))
    adapted.save_pretrained(folder)
    return folder


def merged_by_us(checkpoint: Path, adapter: Path) -> dict[str, np.ndarray]:
    model, weights = ModelConfig.from_folder(checkpoint), Checkpoint(checkpoint)
    if model.tie_word_embeddings:
        weights.tie_head()
    Adapter.open(adapter).merge_into(weights, model)
    return {name: weight.load() for name, weight in weights.weights.items()}


def assert_merges_as_peft(peft: Any, model: Any, checkpoint: Path, adapter: Path) -> dict[str, np.ndarray]:
    merged = merged_by_us(checkpoint, adapter)
    expected = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(merged[name], tensor.numpy(), rtol=1e-5, atol=TOLERANCE, err_msg=name)
    return merged


def assert_answers_as_unmerged(peft: Any, load: Callable[..., Any], name: str, adapter: Path, merged: Any) -> None:
    """Same logits as the model with the adapter beside it: what the adapter was trained as."""
    import torch

    ids = torch.arange(1, 30).reshape(1, -1)
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(load(name), adapter).eval()(input_ids=ids).logits
        model = load(name, untied=True)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in merged.items()})
        logits = model(input_ids=ids).logits
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("variation", [*VARIATIONS, *TIED])
@pytest.mark.parametrize("name", NAMES)
def test_variation(
    peft: Any,
    base_model: Callable[..., Any],
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    name: str,
    variation: str,
) -> None:
    plan = {**VARIATIONS, **TIED}[variation]
    if variation in TIED and name != "tiny-smolvlm":
        pytest.skip("the checkpoint has a head of its own")
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **plan.config})
    adapter = train(peft, base_model(name), config, tmp_path / "adapter", plan.dtype)
    merged = assert_merges_as_peft(peft, base_model(name, untied=not plan.tied_base), tiny_checkpoints[name], adapter)
    before = {key: tensor.numpy() for key, tensor in base_model(name).state_dict().items()}
    for changed in plan.changed:
        assert np.abs(merged[changed] - before[changed]).max() > 0.01, changed
    assert_answers_as_unmerged(peft, base_model, name, adapter, merged)


def test_tied_adapters_of_table_and_head_are_not_added_twice(
    peft: Any, base_model: Callable[..., Any], tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT saves a tied LoRA twice and its merge adds it twice to the one matrix; the trained model has it once."""
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens"], ensure_weight_tying=True)
    adapter = train(peft, base_model("tiny-smolvlm"), config, tmp_path / "adapter")
    merged = merged_by_us(tiny_checkpoints["tiny-smolvlm"], adapter)
    np.testing.assert_allclose(merged[TABLE], merged[HEAD], atol=TOLERANCE)
    assert_answers_as_unmerged(peft, base_model, "tiny-smolvlm", adapter, merged)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.stem)
def test_published_configuration(
    peft: Any, base_model: Callable[..., Any], tiny_checkpoints: dict[str, Path], tmp_path: Path, published: Path
) -> None:
    """Keys that only other versions of PEFT know, a null task, a base path of somebody else's disk."""
    values = json.loads(published.read_text())
    known = ("r", "lora_alpha", "target_modules", "use_dora", "use_rslora")
    config = peft.LoraConfig(**{key: values[key] for key in known if key in values})
    adapter = train(peft, base_model("tiny-idefics3"), config, tmp_path / "adapter", "bfloat16")
    (adapter / "adapter_config.json").write_bytes(published.read_bytes())
    assert_merges_as_peft(peft, base_model("tiny-idefics3"), tiny_checkpoints["tiny-idefics3"], adapter)


@pytest.mark.parametrize("name", NAMES)
def test_grown_vocabulary(
    peft: Any, base_model: Callable[..., Any], tiny_checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    def grown() -> Any:
        model = base_model(name, untied=True)
        model.resize_token_embeddings(model.config.text_config.vocab_size + 5)
        return model

    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    adapter = train(peft, grown(), config, tmp_path / "adapter")
    merged = assert_merges_as_peft(peft, grown(), tiny_checkpoints[name], adapter)
    size = ModelConfig.from_folder(tiny_checkpoints[name]).text.vocab_size
    assert merged[TABLE].shape[0] == merged[HEAD].shape[0] == size + 5


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"]])
def test_grown_tied_vocabulary_beside_an_adapter(
    peft: Any, base_model: Callable[..., Any], tiny_checkpoints: dict[str, Path], tmp_path: Path, targets: list[str]
) -> None:
    """PEFT saves the base matrix beside the adapter; being tied, it stands for the other one as well."""

    def grown() -> Any:
        model = base_model("tiny-smolvlm")
        model.resize_token_embeddings(model.config.text_config.vocab_size + 5, mean_resizing=False)
        return model

    base = grown()
    matrix = base.lm_head.weight.detach().numpy().copy()
    adapter = train(peft, base, peft.LoraConfig(r=4, target_modules=targets), tmp_path / "adapter")
    merged = merged_by_us(tiny_checkpoints["tiny-smolvlm"], adapter)
    untouched = HEAD if targets == ["embed_tokens"] else TABLE
    np.testing.assert_array_equal(merged[untouched], matrix)
    assert merged[TABLE].shape == merged[HEAD].shape == matrix.shape
    assert np.abs(merged[TABLE] - merged[HEAD]).max() > 0.01
