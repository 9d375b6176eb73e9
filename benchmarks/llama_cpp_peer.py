"""The text half of a checkpoint in llama.cpp: one GGUF file per width, and the logits of given token ids.

Runs in an environment of its own that holds llama-cpp-python, numpy, safetensors and ml_dtypes:

    python benchmarks/llama_cpp_peer.py CHECKPOINT WINDOWS.json OUT Q4_0 Q4_K_M ...

and writes OUT/NAME.gguf and OUT/NAME.npy, the logits float32 [positions, vocab_size] of all windows in a row.
"""

import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
from safetensors import safe_open

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.text_model.embed_tokens": "token_embd", "model.text_model.norm": "output_norm", "lm_head": "output"}
THREADS = 2


def name_of(tensor: str) -> str | None:
    """What llama.cpp calls a tensor of the checkpoint; None if it is not of the text model."""
    stem = tensor.removesuffix(".weight")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    head, _, rest = stem.partition("text_model.layers.")
    number, _, part = rest.partition(".")
    return f"blk.{number}.{LAYER[part]}.weight" if head == "model." and part in LAYER else None


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbours where transformers rotates halves (convert_hf_to_gguf.py, permute)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_float(checkpoint: Path, out: Path) -> None:
    """The text model as it is, in float32, with a vocabulary that is never used."""
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(text.get("head_dim") or text["hidden_size"] // heads)
    writer.add_rope_freq_base(text.get("rope_theta") or text["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_vocab_size(text["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            for tensor in tensors.keys():  # noqa: SIM118 - no mapping
                if name := name_of(tensor):
                    weight = tensors.get_tensor(tensor).astype(np.float32)
                    if name.endswith(("attn_q.weight", "attn_k.weight")):
                        weight = interleaved(weight, heads if name.endswith("attn_q.weight") else kv_heads)
                    writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, out: Path, width: str) -> None:
    """Let llama.cpp quantise a file."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{width}")
    parameters.nthread = THREADS
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), parameters):
        sys.exit(f"llama.cpp cannot quantise to {width}")


def logits_of(model: Path, windows: list[list[int]]) -> np.ndarray:
    """Logits of every position, each window read with an empty cache."""
    longest = max(map(len, windows))
    llama = llama_cpp.Llama(
        str(model), n_ctx=longest, n_batch=longest, n_threads=THREADS, logits_all=True, vocab_only=False, verbose=False
    )
    found = []
    for window in windows:
        llama.reset()
        llama.eval(window)
        found.append(np.array(llama.scores[: len(window)], np.float32))
    return np.concatenate(found)


def main() -> None:
    """Write the files of every width."""
    checkpoint, windows_file, out, *widths = sys.argv[1:]
    windows, folder = json.loads(Path(windows_file).read_text()), Path(out)
    whole = folder / "F32.gguf"
    write_float(Path(checkpoint), whole)
    for width in widths:
        file = folder / f"{width}.gguf"
        if width != "F32":
            quantise(whole, file, width)
        np.save(folder / f"{width}.npy", logits_of(file, windows))
        print(f"{width}: {file.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
