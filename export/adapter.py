"""A PEFT LoRA adapter, merged into a checkpoint's tensors in float32 at the moment they are read.

    W' = W + scaling * B A                                               LoRA, Hu et al. 2021, arXiv 2106.09685
    W' = magnitude * (W + scaling * B A) / ||W + scaling * B A||         DoRA, Liu et al. 2024, arXiv 2402.09353

The norm is taken of every output: a row of a linear layer or of a convolution's flattened kernel, a column of an
embedding (whose update is B A transposed). Rules of PEFT 0.21.2: tuners/lora/layer.py and variants.py (the sums),
tuners/trainable_tokens/layer.py, utils/save_and_load.py (the names). PEFT ignores `fan_in_fan_out` for torch's own
layers, and these models have no others.

A tied head is the one place where the result is not that of `merge_and_unload`: whatever an adapter changes in the
token table, that function changes in the head too, although in training the head did not see it; PEFT warns of it and
advises to untie the model before. Here each of the two becomes what the unmerged model computes with.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.formats import ADAPTER_WEIGHTS, check_adapter_format
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.export.adapter_config import MERGE_WITH_PEFT, AdapterConfig
from smolvlm_edge.export.checkpoint import (
    HEAD,
    TOKEN_TABLE,
    Checkpoint,
    Weight,
    canonical_name,
    name_some,
    read_tensors,
)

_TABLE_MODULE, _HEAD_MODULE = TOKEN_TABLE.removesuffix(".weight"), HEAD.removesuffix(".weight")

_A, _B, _B_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
_EMBEDDING_A, _EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
_MAGNITUDE, _TOKENS = "lora_magnitude_vector", "token_adapter.trainable_tokens_delta"
# in place of the base's: of modules_to_save and `bias`, or what PEFT saves beside an adapted token table
_BASE_WEIGHT = "base_layer.weight"
_WEIGHTS, _BIASES = ("weight", _BASE_WEIGHT), ("bias", "base_layer.bias")
_PARTS = (_A, _B, _B_BIAS, _EMBEDDING_A, _EMBEDDING_B, _MAGNITUDE, _TOKENS, *_WEIGHTS, *_BIASES)
_NAME = re.compile(rf"(.+?)\.({'|'.join(map(re.escape, _PARTS))})")

Parts = Mapping[str, Weight]
"""What an adapter holds of one module, by the names of PEFT (`_PARTS`)."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's tensors, not yet read, by module (`model.text_model.layers.0.mlp.up_proj`) and part."""

    folder: Path
    config: AdapterConfig
    modules: Mapping[str, Parts]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read adapter_config.json and the header of adapter_model.safetensors.

        Raises:
            ModelNotFoundError: No adapter in that folder.
            UnsupportedModelError: A kind of adapter that cannot be merged here.
            IntegrityError: A file is damaged, or holds a tensor that is no part of a LoRA adapter.
        """
        check_adapter_format(folder)
        config = AdapterConfig.from_folder(folder)
        modules: dict[str, dict[str, Weight]] = {}
        unknown = []
        for stored, weight in read_tensors(folder / ADAPTER_WEIGHTS).items():
            match = _NAME.fullmatch(canonical_name(stored))
            if match is None or match[2] in modules.setdefault(match[1], {}):
                unknown.append(stored)
            else:
                modules[match[1]][match[2]] = weight
        if unknown or not modules:
            what = f"{name_some(unknown)}, which no LoRA adapter has" if unknown else "no tensors"
            raise IntegrityError(f"{folder / ADAPTER_WEIGHTS} holds {what}: {MERGE_WITH_PEFT}")
        return cls(folder, config, modules)

    def merge_into(self, checkpoint: Checkpoint, model: ModelConfig) -> ModelConfig:
        """Put merged weights into the checkpoint; each is computed when it is read.

        Returns:
            `model` with the adapter's vocabulary, and untied if the adapter holds something of token table or head.

        Raises:
            IntegrityError: Adapter and checkpoint do not fit. Reading a weight raises it if the result is not finite.
        """
        modules = _shared(self.modules) if model.tie_word_embeddings else self.modules
        fits = [_Module(self, checkpoint, module, parts) for module, parts in modules.items()]
        problems = [problem for module in fits for problem in module.problems()]
        if problems:
            raise IntegrityError(f"{self.folder} does not fit {checkpoint.folder}: {name_some(problems)}")
        for module in fits:
            module.merge()
        both = (checkpoint.weights.get(name) for name in (TOKEN_TABLE, HEAD))
        rows = [weight.shape[0] for weight in both if weight is not None and weight.shape]
        if len({*rows}) > 1:
            raise IntegrityError(
                f"{self.folder}: the token table would have {rows[0]} rows and the head {rows[1]}; when the vocabulary "
                "grows, save both with the adapter (modules_to_save)"
            )
        text = replace(model.text, vocab_size=rows[0] if rows else model.text.vocab_size)
        tied = model.tie_word_embeddings and modules.keys().isdisjoint((_TABLE_MODULE, _HEAD_MODULE))
        return replace(model, text=text, tie_word_embeddings=tied)


def _shared(modules: Mapping[str, Parts]) -> dict[str, Parts]:
    """What a tied head and the token table share in PEFT: the base weight and, if the head has none, new tokens."""
    table, head = (dict(modules.get(module, {})) for module in (_TABLE_MODULE, _HEAD_MODULE))
    for part, sources in ((_BASE_WEIGHT, (table, head)), (_TOKENS, (table,))):
        for source in sources:
            for parts in (table, head):
                if part in source:
                    parts.setdefault(part, source[part])
    both = {_TABLE_MODULE: table, _HEAD_MODULE: head}
    return {**modules, **{module: parts for module, parts in both.items() if parts}}


class _Module:
    """A module of the checkpoint and what the adapter holds of it."""

    def __init__(self, adapter: Adapter, checkpoint: Checkpoint, name: str, parts: Parts) -> None:
        self.config, self.weights, self.name, self.parts = adapter.config, checkpoint.weights, name, parts
        self.replacement = next((parts[part] for part in _WEIGHTS if part in parts), None)
        self.indices = self.config.token_indices(name) or self.config.token_indices(_TABLE_MODULE)

    def problems(self) -> Iterator[str]:
        """What does not fit, in words."""
        if f"{self.name}.weight" not in self.weights:
            yield f"it has nothing for {next(iter(self.parts.values())).name}"
            return
        if any(part.startswith("lora_") for part in self.parts) and not self.config.targets(self.name):
            yield f"target_modules of adapter_config.json leave out {self.name}"
        expected = self.expected_shapes()
        for part in sorted({*self.parts, *expected}):
            if part not in self.parts:
                yield f"{self.name}.{part} is missing"
            elif part not in expected:
                yield f"{self.parts[part].name} has no place there"
            elif self.parts[part].shape != expected[part]:
                yield f"{self.parts[part].name} has shape {list(self.parts[part].shape)}, not {list(expected[part])}"

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """The parts that belong to such a module, and their shapes."""
        bias = self.weights.get(f"{self.name}.bias")
        shapes = {} if bias is None else {part: bias.shape for part in _BIASES if part in self.parts}
        out, *inner = self.weights[f"{self.name}.weight"].shape or (0,)
        if self.replacement is not None:
            if self.name in (_TABLE_MODULE, _HEAD_MODULE):  # the vocabulary may have grown
                out = max(self.replacement.shape[:1], default=out) or out
            shapes |= {part: (out, *inner) for part in _WEIGHTS if part in self.parts}
        rank, kernel = self.config.rank(self.name), (1,) * (len(inner) - 1)
        if not inner:  # a norm
            return shapes
        if _EMBEDDING_A in self.parts or _EMBEDDING_B in self.parts:
            shapes |= {_EMBEDDING_A: (rank, out), _EMBEDDING_B: (inner[0], rank)}
            magnitude: tuple[int, ...] = (inner[0],)
        elif any(part.startswith("lora_") for part in self.parts):
            shapes |= {_A: (rank, *inner), _B: (out, rank, *kernel)}
            magnitude = (1, out, *kernel) if kernel else (out,)
            if self.config.lora_bias and bias is not None:
                shapes[_B_BIAS] = (out,)
        else:
            if _TOKENS in self.parts and max(self.indices, default=0) < out:
                shapes[_TOKENS] = (len(self.indices), *inner)
            return shapes
        return {**shapes, _MAGNITUDE: magnitude} if self.config.use_dora else shapes

    def merge(self) -> None:
        """Replace the checkpoint's weight and bias by what becomes of them with the adapter."""
        name, bias, scaling = f"{self.name}.weight", f"{self.name}.bias", self.config.scaling(self.name)
        base = self.replacement or self.weights[name]
        load = partial(_merged, base, self.parts, scaling, self.indices)
        self.weights[name] = Weight(name, base.shape, load)
        for part in _BIASES:
            if part in self.parts:
                self.weights[bias] = replace(self.parts[part], name=bias)
        if _B_BIAS in self.parts:
            load = partial(_biased, self.weights[bias], self.parts[_B_BIAS], scaling)
            self.weights[bias] = replace(self.weights[bias], load=load)


def _merged(base: Weight, parts: Parts, scaling: float, indices: Sequence[int]) -> npt.NDArray[np.float32]:
    """The weight, of the shape of `base`, with the adapter's part in it."""
    weight = base.load()
    matrix = weight.reshape(len(weight), -1)  # the same memory; a convolution's kernel as a row
    with np.errstate(all="ignore"):  # what overflows is not finite in the end
        if _TOKENS in parts:
            matrix[list(indices)] = parts[_TOKENS].load()
        if _A in parts:
            lora_A, lora_B = parts[_A].load(), parts[_B].load()  # noqa: N806 - their names everywhere
            matrix += np.float32(scaling) * (lora_B.reshape(len(matrix), -1) @ lora_A.reshape(len(lora_A), -1))
        if _EMBEDDING_A in parts:
            matrix += np.float32(scaling) * (parts[_EMBEDDING_B].load() @ parts[_EMBEDDING_A].load()).T
        if _MAGNITUDE in parts:
            norm = np.linalg.norm(matrix, axis=0 if _EMBEDDING_A in parts else 1, keepdims=True)
            matrix *= parts[_MAGNITUDE].load().reshape(norm.shape) / norm
    return _finite(base.name, weight)


def _biased(bias: Weight, lora_bias: Weight, scaling: float) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return _finite(bias.name, bias.load() + np.float32(scaling) * lora_bias.load())


def _finite(name: str, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if not np.isfinite(tensor).all():
        raise IntegrityError(f"tensor {name} holds NaN or infinity after merging: the adapter is damaged")
    return tensor
