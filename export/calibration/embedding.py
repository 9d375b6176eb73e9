"""Samples -> what goes into the decoder."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.architecture import GRAPHS
from smolvlm_edge.export.calibration.samples import Sample, tiles_of
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint
from smolvlm_edge.export.targets.onnx import OnnxGraphBuilder
from smolvlm_edge.graphs import Graph
from smolvlm_edge.quantize import Floats, Recipe


def embed_samples(
    samples: Sequence[Sample],
    checkpoint: Checkpoint,
    model: ModelConfig,
    recipe: Recipe,
    folder: Path,
    threads: int,
    on_sample: Callable[[int, int], None],
) -> list[Floats]:
    """inputs_embeds [positions, hidden] of every sample.

    Args:
        samples: The calibration set.
        checkpoint: The weights.
        model: Whose they are.
        recipe: Of the vision encoder: image features are to be those that the decoder will be given.
        folder: For files that live no longer than this call.
        threads: Of the engine.
        on_sample: Called with the samples that are done and their total.
    """
    from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415 - no engine before it is needed

    table = checkpoint.weight(TOKEN_TABLE, model.text.vocab_size, model.text.hidden_size).load()
    embedded = [table[sample.input_ids] for sample in samples]
    with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        engine, graphs = OnnxRuntimeEngine(threads), []
        for name in ("vision_encoder", "connector"):
            with closing(OnnxGraphBuilder(Path(scratch), name, recipe)) as builder:
                GRAPHS[name](builder, checkpoint, model)
                builder.save("")
            graphs.append(engine.graph(Path(scratch) / f"{name}.onnx"))
        for count, (sample, inputs_embeds) in enumerate(zip(samples, embedded, strict=True), start=1):
            _put_pictures(sample, inputs_embeds, sample.input_ids == model.image_token_id, *graphs)
            on_sample(count, len(samples))
        for graph in graphs:
            graph.close()
    return embedded


def _put_pictures(
    sample: Sample, inputs_embeds: Floats, places: np.ndarray, vision_encoder: Graph, connector: Graph
) -> None:
    if places.any():
        features = np.concatenate([connector(vision_encoder(tile[None]))[0] for tile in tiles_of([sample])])
        inputs_embeds[places] = features[: places.sum()]  # a long sample may end among its pictures
