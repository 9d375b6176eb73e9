"""Samples -> what goes into the decoder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from smolvlm_edge.config import ModelConfig
from smolvlm_edge.export.calibration.samples import Sample, tiles_of
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.quantize import Floats


def embed_samples(
    samples: Sequence[Sample],
    checkpoint: Checkpoint,
    model: ModelConfig,
    folder: Path,
    threads: int,
    on_sample: Callable[[int, int], None],
) -> list[tuple[Floats, Floats]]:
    """inputs_embeds [positions, hidden] of every sample, by the original token table and by the rounded one.

    Image features are the same in both: those of the rounded vision encoder, which the decoder will be given.

    Args:
        samples: The calibration set.
        checkpoint: The original weights.
        model: Whose they are.
        folder: Holds the graphs of everything before the decoder.
        threads: Of the engine.
        on_sample: Called with the samples that are done and their total.
    """
    engine = OnnxRuntimeEngine(threads)
    vision_encoder, connector, embed_tokens = (
        engine.graph(folder / f"{name}.onnx") for name in ("vision_encoder", "connector", "embed_tokens")
    )
    table = checkpoint.weight(TOKEN_TABLE, model.text.vocab_size, model.text.hidden_size).load()
    embedded = []
    for count, sample in enumerate(samples, start=1):
        original, rounded = table[sample.input_ids], embed_tokens(sample.input_ids[None])[0]
        places = sample.input_ids == model.image_token_id
        if places.any():
            features = np.concatenate([connector(vision_encoder(tile[None]))[0] for tile in tiles_of([sample])])
            # a long sample may end among its pictures
            original[places] = rounded[places] = features[: places.sum()]
        embedded.append((original, rounded))
        on_sample(count, len(samples))
    return embedded
