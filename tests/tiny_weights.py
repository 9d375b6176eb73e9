"""Seeded weights for a configuration, under the names that the family's checkpoints have."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file


def write_weights(folder: Path, config: dict[str, Any], seed: int, number_format: npt.DTypeLike, shards: int) -> None:
    """Write model.safetensors, or shards and their index, for a config.json."""
    weights = {
        name: _random_weight(seed, name, shape).astype(np.float32).astype(number_format)
        for name, shape in sorted(_shapes(config).items())
    }
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file, part = f"model-{i + 1:05}-of-{shards:05}.safetensors", list(weights)[i::shards]
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total_size = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint; make_family.py has transformers confirm that none is missing or superfluous."""
    text, vision = config["text_config"], config["vision_config"]
    hidden, patch, tower, tokens = text["hidden_size"], vision["patch_size"], vision["hidden_size"], text["vocab_size"]
    inner, tower_inner = text["intermediate_size"], vision.get("intermediate_size", 3072)
    queries = text["num_attention_heads"] * text.get("head_dim", hidden // text["num_attention_heads"])
    keys = queries // text["num_attention_heads"] * text["num_key_value_heads"]
    encoder, decoder = "model.vision_model", "model.text_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{encoder}.embeddings.patch_embedding.weight": (tower, 3, patch, patch),
        f"{encoder}.embeddings.patch_embedding.bias": (tower,),
        f"{encoder}.embeddings.position_embedding.weight": (patches_per_side(vision) ** 2, tower),
        "model.connector.modality_projection.proj.weight": (hidden, tower * config["scale_factor"] ** 2),
        f"{decoder}.embed_tokens.weight": (tokens, hidden),
        f"{decoder}.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (tokens, hidden)
    for part in ("weight", "bias"):
        shapes[f"{encoder}.post_layernorm.{part}"] = (tower,)
    for i in range(vision.get("num_hidden_layers", 12)):
        layer = f"{encoder}.encoder.layers.{i}"
        matrices = {f"self_attn.{name}": (tower, tower) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        matrices |= {"mlp.fc1": (tower_inner, tower), "mlp.fc2": (tower, tower_inner)}
        for name, shape in matrices.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{norm}.weight": (tower,), f"{layer}.{norm}.bias": (tower,)}
    for i in range(text["num_hidden_layers"]):
        layer = f"{decoder}.layers.{i}"
        matrices = {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
        shapes |= {f"{layer}.self_attn.{name}.weight": shape for name, shape in matrices.items()}
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, queries)
        shapes |= {f"{layer}.mlp.{name}.weight": (inner, hidden) for name in ("gate_proj", "up_proj")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def patches_per_side(vision: dict[str, Any]) -> int:
    """Patches along one side of a tile; pixels that fill no patch are left over."""
    side: int = vision["image_size"] // vision["patch_size"]
    return side


def _random_weight(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform noise, larger than a fresh model's: its attention would be flat and its answers all the same.

    Raw numbers of a bit generator are the same with every numpy and on every platform; those of a distribution
    need not be.
    """
    raw = np.random.PCG64([seed, crc32(name.encode())]).random_raw(int(np.prod(shape)))
    return scaled(((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(shape) * np.sqrt(3), name)


def scaled(noise: np.ndarray, name: str) -> np.ndarray:
    """Noise of variance 1 as the tensor of that name."""
    fan_in = np.prod(noise.shape[1:])
    if ".embeddings." in name:  # so small that the epsilon of the vision tower's first norm shows
        return 0.05 * noise / (np.sqrt(fan_in) if "patch_embedding.weight" in name else 1)
    if name.endswith(".bias"):
        return 0.2 * noise
    if noise.ndim == 1:  # a norm
        return 1 + 0.2 * noise
    if name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return 0.4 * noise
    return 1.5 * noise / np.sqrt(fan_in)
