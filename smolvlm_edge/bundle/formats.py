"""What belongs to a checkpoint or an adapter, and what to do about something else that lies in its place.

Folders and repositories of the hub are judged by the same rules: by the names of their files, then by config.json, so
that nothing large is fetched or read before it is known to be of use.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from smolvlm_edge.bundle import TOKENIZER_FILES
from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import ModelNotFoundError, UnsupportedModelError

WEIGHTS = ".safetensors"
SINGLE_FILE, INDEX_FILE = f"model{WEIGHTS}", f"model{WEIGHTS}.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", f"adapter_model{WEIGHTS}"

_PICKLED = "pickled weights, which run code when they are read: save the model as safetensors"
_OTHER_FRAMEWORK = "weights of another framework: load them with transformers and save the model as safetensors"
_GRAPHS = "graphs that are exported already: name the safetensors checkpoint that they were made from"
_FOREIGN = {
    ".xml": _GRAPHS,  # of OpenVINO, whose weights end in .bin as pickled ones do
    ".gguf": "GGUF weights for llama.cpp: name the safetensors checkpoint that they were made from",
    ".bin": _PICKLED,
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".ckpt": _PICKLED,
    ".h5": _OTHER_FRAMEWORK,
    ".msgpack": _OTHER_FRAMEWORK,
    ".npz": _OTHER_FRAMEWORK,
    ".onnx": _GRAPHS,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is fetched and read of a checkpoint or an adapter: never a pickle, which could run programs."""

    patterns: tuple[str, ...]
    needed: tuple[str, ...]
    """Without these there is none, weights apart."""
    check_names: Callable[[str | Path, Collection[str]], None]
    """Refuses, by the names of its files, a place that holds something else."""
    check_small: Callable[[Path], object]
    """Refuses a folder in which all but the weights has arrived."""

    def wants(self, name: str) -> bool:
        """Whether a file is one of those that are fetched and read."""
        plain = "/" not in name and "\\" not in name  # a repository may call a file a/../../b
        return plain and any(fnmatchcase(name, pattern) for pattern in self.patterns)


def check_format(checkpoint: Path) -> None:
    """Refuse a folder that is known to be no checkpoint of plain safetensors weights; if it is whole is seen later.

    Raises:
        ModelNotFoundError: There is no config.json or no weights, or the folder is an adapter.
        UnsupportedModelError: The weights are quantised, or in files of another kind.
    """
    if os.path.isfile(checkpoint) and checkpoint.suffix in _FOREIGN:
        raise UnsupportedModelError(f"{checkpoint} holds {_FOREIGN[checkpoint.suffix]}")
    _check_checkpoint_names(checkpoint, _names(checkpoint))
    _refuse_quantised(read_json(checkpoint / "config.json"))


def check_adapter_format(adapter: Path) -> None:
    """Refuse a folder that is known to be no adapter.

    Raises:
        ModelNotFoundError: There is no adapter_config.json, or no weights.
        UnsupportedModelError: The weights are pickled.
    """
    _check_adapter_names(adapter, _names(adapter))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if os.path.isfile(path)]
    except OSError:
        return []


def _check_checkpoint_names(place: str | Path, names: Collection[str]) -> None:
    suffixes = _by_suffix(names)
    foreign = next((suffix for suffix in _FOREIGN if suffix in suffixes), None)
    if foreign and WEIGHTS not in suffixes:
        raise UnsupportedModelError(f"{place}/{suffixes[foreign]} holds {_FOREIGN[foreign]}")
    if "config.json" not in names:
        if ADAPTER_CONFIG in names:
            raise ModelNotFoundError(f"{place} is an adapter: smol-edge export BASE --adapter {place}")
        raise ModelNotFoundError(f"{place} has no config.json: name the folder of a safetensors checkpoint")
    if SINGLE_FILE not in names and INDEX_FILE not in names:
        raise ModelNotFoundError(
            f"{place} holds no {SINGLE_FILE} and no {INDEX_FILE}: name the folder of a safetensors checkpoint"
        )


def _check_adapter_names(place: str | Path, names: Collection[str]) -> None:
    if ADAPTER_CONFIG not in names:
        whole = "it is a whole checkpoint: export it without --adapter"
        hint = whole if "config.json" in names else "name the folder of a PEFT adapter"
        raise ModelNotFoundError(f"{place} has no {ADAPTER_CONFIG} ({hint})")
    if ADAPTER_WEIGHTS in names:
        return
    if "adapter_model.bin" in names:
        raise UnsupportedModelError(
            f"{place}/adapter_model.bin is pickled: load the adapter with PEFT and save it as safetensors"
        )
    raise ModelNotFoundError(f"{place} has no {ADAPTER_WEIGHTS}: name the folder of a PEFT adapter")


def _by_suffix(names: Iterable[str]) -> dict[str, str]:
    """The first name of every suffix."""
    return {Path(name).suffix: name for name in sorted(names, reverse=True)}


def _check_checkpoint_small(folder: Path) -> None:
    _refuse_quantised(read_json(folder / "config.json"))
    ModelConfig.from_folder(folder)


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


CHECKPOINT = Kind(
    patterns=(*TOKENIZER_FILES, SINGLE_FILE, INDEX_FILE, f"model-*-of-*{WEIGHTS}"),
    needed=("config.json", "tokenizer.json"),
    check_names=_check_checkpoint_names,
    check_small=_check_checkpoint_small,
)
ADAPTER = Kind(
    patterns=(*TOKENIZER_FILES, ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    needed=(ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    check_names=_check_adapter_names,
    check_small=lambda folder: read_json(folder / ADAPTER_CONFIG),
)
