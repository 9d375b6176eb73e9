"""A safetensors folder as named tensors, read lazily.

Owns the files of a checkpoint; knows nothing of graphs. A tensor is read when it is asked for and the
file is closed again: a mapping that stayed open would count every page ever touched as memory of the
export.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy, which safetensors then uses
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from smolvlm_edge.bundle.formats import INDEX_FILE, SINGLE_FILE
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import IntegrityError, UnsupportedModelError

WEIGHT_TYPES = ("F32", "F16", "BF16")
TOKEN_TABLE, HEAD = "model.text_model.embed_tokens.weight", "lm_head.weight"

# what trainers put before or into a name: PEFT, DataParallel, torch.compile; `model.` may be missing or doubled
_WRAPPERS = re.compile(r"^(?:(?:base_model|module|model)\.)+")
_COMPILED = "_orig_mod."
_PARTS = ("vision_model.", "connector.", "text_model.")
_ADAPTER = re.compile(r"\.(?:base_layer|original_module|modules_to_save)\.|\.lora_")
# buffers that old checkpoints hold and transformers 5.23 passes over (modeling_utils.py, unexpected_patterns)
_BUFFER = re.compile(r"(?:^|\.)(?:rotary_emb\.inv_freq|position_ids)$")
# bitsandbytes 4 bit and 8 bit; GPTQ and AWQ; MLX; FP8 and compressed-tensors
_QUANTISED = re.compile(
    r"\.(?:absmax|quant_map|quant_state\.\w+|SCB|weight_format|qweight|qzeros|scales|biases"
    r"|weight_scale|weight_scale_inv|weight_packed)$"
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that can be read, or several read and joined along the first axis."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[np.float32]]


def concatenate(name: str, weights: Sequence[Weight]) -> Weight:
    """Join weights along the first axis, as for one product with the queries, keys and values."""
    rows = sum(weight.shape[0] for weight in weights)
    return Weight(name, (rows, *weights[0].shape[1:]), lambda: np.concatenate([weight.load() for weight in weights]))


class Checkpoint:
    """The tensors of a Hugging Face folder: `model.safetensors`, or shards and their index.

    `weights` holds them by the names that transformers 5 gives them, whatever a trainer put before those.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights: dict[str, Weight] = {}
        self._stored: dict[str, str] = {}
        self._used: set[str] = set()
        for file in _weight_files(folder):
            for stored, weight in read_tensors(file).items():
                if _BUFFER.search(stored):
                    continue
                _refuse_packed(file, stored)
                name = canonical_name(stored)
                if name in self._stored:
                    raise IntegrityError(
                        f"{file} holds {stored} and {self._stored[name]}, two tensors for {name}: save the model again"
                    )
                self.weights[name], self._stored[name] = replace(weight, name=name), stored

    def weight(self, name: str, *shape: int) -> Weight:
        """The float32 tensor of that name, not yet read.

        Raises:
            IntegrityError: The tensor is missing or of another shape. Reading it raises the same if it is of a type
                that holds no weights, or holds NaN or infinity.
        """
        weight = self.weights.get(name)
        if weight is None:
            hint = " (config.json does not tie it to the token table)" if name == HEAD else ""
            raise IntegrityError(f"{self.folder}: tensor {name} is missing from the checkpoint{hint}")
        if weight.shape != shape:
            raise IntegrityError(
                f"{self.folder}: tensor {name} has shape {list(weight.shape)}, config.json asks for {list(shape)}"
            )
        self._used.add(name)
        return weight

    def tie_head(self) -> None:
        """Let token table and head stand for each other if only one of them is stored.

        So does transformers 5.23 (modeling_utils.py, tie_weights) for `tie_word_embeddings`, and where both are stored
        it keeps both.
        """
        for name, other in ((HEAD, TOKEN_TABLE), (TOKEN_TABLE, HEAD)):
            if name not in self.weights and other in self.weights:
                self.weights[name] = replace(self.weights[other], name=name)

    def check_all_used(self) -> None:
        """Refuse weights that nothing asked for: the model was trained with a part that would be lost.

        Raises:
            UnsupportedModelError: There are some.
        """
        unused = [stored for name, stored in self._stored.items() if name not in self._used]
        if unused:
            raise UnsupportedModelError(
                f"{self.folder} holds weights that are no part of a SmolVLM or Idefics3 that writes text: "
                f"{name_some(unused)}; save the model without them"
            )


def canonical_name(stored: str) -> str:
    """The name that transformers 5 gives a tensor, by the name that it is stored under."""
    name = _WRAPPERS.sub("", stored.replace(_COMPILED, ""))
    if name.startswith(_PARTS):
        return f"model.{name}"
    return name if name.startswith("lm_head.") else stored


def name_some(names: Sequence[str]) -> str:
    """The first few of many names, for an error of one line."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def read_tensors(file: Path) -> dict[str, Weight]:
    """Every tensor of a safetensors file by its stored name; only the header is read.

    Raises:
        IntegrityError: The file is damaged or missing.
    """
    return dict(_entries(file))


def _refuse_packed(file: Path, stored: str) -> None:
    if _ADAPTER.search(stored):
        raise UnsupportedModelError(
            f"{file} holds an adapter that is not merged ({stored}): merge it with PEFT (merge_and_unload), "
            "or save it apart and name it with --adapter"
        )
    if _QUANTISED.search(stored):
        raise UnsupportedModelError(
            f"{file} is quantised already ({stored}): export the original checkpoint in bfloat16, float16 or float32"
        )


def _weight_files(folder: Path) -> list[Path]:
    if os.path.isfile(single := folder / SINGLE_FILE):
        return [single]
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict):
        raise IntegrityError(f"{folder / INDEX_FILE} has no weight_map")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if Path(name).name != name:
            raise IntegrityError(f"{folder / INDEX_FILE} names {name}, which lies outside the checkpoint folder")
        if not os.path.isfile(folder / name):
            raise IntegrityError(f"{folder / INDEX_FILE} names {name}, but that file is missing: download it again")
    return [folder / name for name in shards]


def _entries(file: Path) -> Iterator[tuple[str, Weight]]:
    with _opened(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            header = tensors.get_slice(name)
            yield name, Weight(name, tuple(header.get_shape()), partial(_read, file, name, header.get_dtype()))


def _read(file: Path, name: str, dtype: str) -> npt.NDArray[np.float32]:
    if dtype not in WEIGHT_TYPES:
        raise IntegrityError(f"{file}: tensor {name} has type {dtype}, not one of {', '.join(WEIGHT_TYPES)}")
    with _opened(file) as tensors:
        tensor: npt.NDArray[np.float32] = tensors.get_tensor(name).astype(np.float32)
    if not np.isfinite(tensor).all():
        raise IntegrityError(f"{file}: tensor {name} holds NaN or infinity")
    return tensor


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """`safe_open`, whose complaints about a damaged file become an IntegrityError."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise IntegrityError(f"{file} is no sound safetensors file ({error})") from error
