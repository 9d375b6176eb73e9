"""Names what lies where a safetensors checkpoint should be, and says what to do about it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolvlm_edge.config import read_json
from smolvlm_edge.errors import ModelNotFoundError, UnsupportedModelError

_PICKLED = "pickled weights, which run code when they are read: save the model as safetensors"
_OTHER_FRAMEWORK = "weights of another framework: load them with transformers and save the model as safetensors"
_FOREIGN = {
    ".gguf": "GGUF weights for llama.cpp: name the safetensors checkpoint that they were made from",
    ".bin": _PICKLED,
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".ckpt": _PICKLED,
    ".h5": _OTHER_FRAMEWORK,
    ".msgpack": _OTHER_FRAMEWORK,
    ".npz": _OTHER_FRAMEWORK,
    ".onnx": "graphs that are exported already: name the safetensors checkpoint that they were made from",
}


def check_format(checkpoint: Path) -> None:
    """Refuse what is known to be no checkpoint of plain safetensors weights; whether it is complete is seen later.

    Raises:
        ModelNotFoundError: There is no config.json, or the folder is an adapter.
        UnsupportedModelError: The weights are quantised, or in files of another kind.
    """
    if os.path.isfile(checkpoint) and checkpoint.suffix in _FOREIGN:
        raise UnsupportedModelError(f"{checkpoint} holds {_FOREIGN[checkpoint.suffix]}")
    try:
        suffixes = {file.suffix: file for file in sorted(checkpoint.iterdir(), reverse=True)}
    except OSError:
        suffixes = {}
    foreign = next((suffix for suffix in _FOREIGN if suffix in suffixes), None)
    if foreign and ".safetensors" not in suffixes:
        raise UnsupportedModelError(f"{suffixes[foreign]} holds {_FOREIGN[foreign]}")
    if not os.path.isfile(checkpoint / "config.json"):
        if os.path.isfile(checkpoint / "adapter_config.json"):
            raise ModelNotFoundError(f"{checkpoint} is an adapter: smol-edge export BASE --adapter {checkpoint}")
        raise ModelNotFoundError(f"{checkpoint} has no config.json: name the folder of a safetensors checkpoint")
    _refuse_quantised(read_json(checkpoint / "config.json"))


def _refuse_quantised(config: Mapping[str, Any]) -> None:
    """`quantization_config` is what transformers writes, `quantization` what MLX writes."""
    values = config.get("quantization_config") or config.get("quantization")
    if not values:
        return
    method = "MLX" if config.get("quantization") else "an unknown method"
    if isinstance(values, dict):
        method = values.get("quant_method", method)
    raise UnsupportedModelError(
        f"the checkpoint is quantised already (config.json: {method}): export the one it was made from, or a copy that "
        "was saved after model.dequantize(); smol-edge quantises by itself (--quant)"
    )
