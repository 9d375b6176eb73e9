"""A safetensors folder as named tensors, read lazily.

Owns the files of a checkpoint; knows nothing of graphs. A tensor is read when it is asked for and the
file is closed again: a mapping that stayed open would count every page ever touched as memory of the
export.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy, which safetensors then uses
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from smolvlm_edge.config import read_json
from smolvlm_edge.errors import IntegrityError, ModelNotFoundError

WEIGHT_TYPES = ("F32", "F16", "BF16")
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


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


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies and what the file's header says of it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """The tensors of a Hugging Face folder: `model.safetensors`, or shards and their index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries = {name: entry for file in _weight_files(folder) for name, entry in _entries(file)}

    def weight(self, name: str, *shape: int) -> Weight:
        """The float32 tensor of that name, not yet read.

        Raises:
            IntegrityError: The tensor is missing, of another shape or of a type that holds no weights.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise IntegrityError(f"{self.folder}: tensor {name} is missing from the checkpoint")
        if entry.shape != shape:
            raise IntegrityError(
                f"{entry.file}: tensor {name} has shape {list(entry.shape)}, config.json asks for {list(shape)}"
            )
        if entry.dtype not in WEIGHT_TYPES:
            raise IntegrityError(
                f"{entry.file}: tensor {name} has type {entry.dtype}, not one of {', '.join(WEIGHT_TYPES)}"
            )
        return Weight(name, shape, lambda: _read(entry.file, name))


def _weight_files(folder: Path) -> list[Path]:
    if os.path.isfile(single := folder / SINGLE_FILE):
        return [single]
    if not os.path.isfile(folder / INDEX_FILE):
        raise ModelNotFoundError(
            f"{folder} holds no {SINGLE_FILE} and no {INDEX_FILE}: name the folder of a safetensors checkpoint"
        )
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


def _entries(file: Path) -> Iterator[tuple[str, _Entry]]:
    with _opened(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            header = tensors.get_slice(name)
            yield name, _Entry(file, tuple(header.get_shape()), header.get_dtype())


def _read(file: Path, name: str) -> npt.NDArray[np.float32]:
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
