"""The model in fp32, one layer at a time, for those who want to see inside."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.architecture.decoder import decoder_layer, language_head
from smolvlm_edge.export.architecture.vision_encoder import patch_embeddings, vision_layer
from smolvlm_edge.export.checkpoint import Checkpoint, Weight
from smolvlm_edge.export.targets.onnx import OnnxGraphBuilder, cached_head_dim
from smolvlm_edge.quantize import RECIPES, Floats

if TYPE_CHECKING:
    from smolvlm_edge.graphs.onnxruntime import OnnxFunction

HIDDEN, DELTA, LOGITS = "hidden", "delta", "logits"
EMBEDDINGS = -1
Run = Callable[[Floats], dict[str, Floats]]
"""What goes into a layer, [positions, hidden] -> what was asked for, each [positions, width]."""


@dataclass(frozen=True, slots=True)
class Layers(ABC):
    """The layers of one half of the model."""

    checkpoint: Checkpoint
    config: ModelConfig
    folder: Path
    """For files that live no longer than an open layer."""
    threads: int

    @abstractmethod
    def __len__(self) -> int: ...

    @contextmanager
    def open(self, index: int, names: Collection[str] | None, replaced: Mapping[str, Floats]) -> Iterator[Run]:
        """A layer as a function of one sequence.

        Args:
            index: Which layer.
            names: What to return: by the name of a matrix, what that matrix is multiplied with; HIDDEN and DELTA, whose
                sum is the layer's output; LOGITS of the head. None: all of it but the logits.
            replaced: Values of matrices that stand in for the checkpoint's, by their names.
        """
        with TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            with closing(_ObservedGraphBuilder(Path(folder), replaced)) as graph:
                graph.observed |= self._build(graph, index)
                names = graph.observed.keys() - {LOGITS} if names is None else names
                run, labels = graph.open(names, self.threads)

            def observe(sequence: Floats) -> dict[str, Floats]:
                outputs = {label: batch[0] for label, batch in run(self._inputs(index, sequence)).items()}
                return {name: outputs[label] for name, label in labels.items()}

            yield observe

    def matrices(self, index: int) -> list[tuple[Weight, str]]:
        """What a layer multiplies with, in its order, and the name of the value that it multiplies each with."""
        with TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder:
            with closing(_ObservedGraphBuilder(Path(folder), {})) as graph:
                self._build(graph, index)
            return [(weight, str(graph.observed[weight.name].name)) for weight in graph.matrices]

    def advance(self, index: int, sequences: Collection[Floats], replaced: Mapping[str, Floats]) -> list[Floats]:
        """What comes out of a layer, [positions, hidden] of every sequence."""
        with self.open(index, (HIDDEN, DELTA), replaced) as run:
            return [total(run(sequence)) for sequence in sequences]

    def watch(self, index: int, hidden: list[Floats], names: Collection[str]) -> Iterator[dict[str, Floats]]:
        """What matrices of a layer are multiplied with, a sequence at a time; `hidden` moves on behind the layer."""
        with self.open(index, (HIDDEN, DELTA, *names), {}) as run:
            for i, sequence in enumerate(hidden):
                values = run(sequence)
                hidden[i] = total(values)
                yield values

    @abstractmethod
    def _build(self, graph: "_ObservedGraphBuilder", index: int) -> dict[str, ir.Value]:
        """Describe a layer; its results."""

    @abstractmethod
    def _inputs(self, index: int, sequence: Floats) -> dict[str, np.ndarray]:
        """What the graph of a layer is fed for one sequence."""


class DecoderLayers(Layers):
    """The decoder; behind the last layer, at index `len`, come the final norm and the head."""

    def __len__(self) -> int:
        return self.config.text.num_hidden_layers

    def _build(self, graph: "_ObservedGraphBuilder", index: int) -> dict[str, ir.Value]:
        text = self.config.text
        hidden = graph.input("inputs_embeds", "float32", ("batch", "sequence", text.hidden_size))
        if index == len(self):
            count = graph.input("logits_to_keep", "int64", (1,))
            return {LOGITS: language_head(graph, self.checkpoint, self.config, hidden, None, count)}
        graph.begin_cache(text)
        hidden, delta = decoder_layer(graph, self.checkpoint, self.config, index, hidden, None)
        return {HIDDEN: hidden, DELTA: delta}

    def _inputs(self, index: int, sequence: Floats) -> dict[str, np.ndarray]:
        text, length = self.config.text, len(sequence)
        past = np.zeros((1, text.num_key_value_heads, 0, cached_head_dim(text.head_dim)), np.float32)
        return {
            "inputs_embeds": sequence[None],
            "logits_to_keep": np.array([length], np.int64),
            "seqlens_k": np.array([length - 1], np.int32),
            "total_sequence_length": np.array(length, np.int32),
            **{f"past_key_values.{index}.{part}": past for part in ("key", "value")},
        }


class VisionLayers(Layers):
    """The vision encoder; before its first layer, at index -1, come the embeddings of the patches."""

    def __len__(self) -> int:
        return self.config.vision.num_hidden_layers

    def embed(self, tiles: Collection[Floats]) -> list[Floats]:
        """[patches, hidden] of tiles [3, H, W]."""
        with self.open(EMBEDDINGS, (HIDDEN,), {}) as run:
            return [run(tile)[HIDDEN] for tile in tiles]

    def _build(self, graph: "_ObservedGraphBuilder", index: int) -> dict[str, ir.Value]:
        vision = self.config.vision
        if index == EMBEDDINGS:
            size = vision.image_size
            pixel_values = graph.input("x", "float32", ("tiles", vision.num_channels, size, size))
            return {HIDDEN: patch_embeddings(graph, self.checkpoint, self.config, pixel_values)}
        hidden = graph.input("x", "float32", ("tiles", "patches", vision.hidden_size))
        hidden, delta = vision_layer(graph, self.checkpoint, self.config, index, hidden, None)
        return {HIDDEN: hidden, DELTA: delta}

    def _inputs(self, index: int, sequence: Floats) -> dict[str, np.ndarray]:  # noqa: ARG002 - all layers alike
        return {"x": sequence[None]}


class _ObservedGraphBuilder(OnnxGraphBuilder):
    """Builds a graph of which any inner value can be an output."""

    def __init__(self, folder: Path, replaced: Mapping[str, Floats]) -> None:
        super().__init__(folder, "observed", RECIPES["fp32"])
        self._replaced = replaced
        self.observed: dict[str, ir.Value] = {}
        self.matrices: list[Weight] = []

    def linear(self, name: str, x: ir.Value, weight: Weight, bias: Weight | None = None) -> ir.Value:
        """As in every graph, but remembers x."""
        self.observed[weight.name] = x
        self.matrices.append(weight)
        if weight.name in self._replaced:
            values = self._replaced[weight.name]
            weight = replace(weight, load=lambda: values)
        return super().linear(name, x, weight, bias)

    def open(self, names: Collection[str], threads: int) -> "tuple[OnnxFunction, dict[str, str]]":
        """The graph with these values as its only outputs, and under which name each comes; the rest is left out."""
        from smolvlm_edge.graphs.onnxruntime import OnnxFunction  # noqa: PLC0415 - no engine before it is needed

        self._outputs = []
        for value in {id(self.observed[name]): self.observed[name] for name in names}.values():
            self.output(f"observed.{len(self._outputs)}", value, "float32", ("batch", "sequence", "width"))
        self.close()
        model = self.model("")
        RemoveUnusedNodesPass()(model)
        ir.save(model, self.folder / "observed.onnx")
        return OnnxFunction(self.folder / "observed.onnx", threads), {n: str(self.observed[n].name) for n in names}


def total(values: Mapping[str, Floats]) -> Floats:
    """The output of a layer."""
    return values[HIDDEN] + values[DELTA]
