"""A checkpoint -> the graphs of a bundle, for one engine's format or for several."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from smolvlm_edge.config import ModelConfig
from smolvlm_edge.export.architecture import GRAPHS
from smolvlm_edge.export.calibration import (
    CalibratedRounding,
    DecoderLayers,
    RememberedRounding,
    Sample,
    VisionLayers,
    embed_samples,
    tiles_of,
)
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.export.rounding import Rounding, round_to_nearest
from smolvlm_edge.export.smoothing import smooth
from smolvlm_edge.export.targets import NewBuilder
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.quantize import Recipe

BEFORE_THE_DECODER = ("vision_encoder", "connector", "embed_tokens")
SMOOTHING_TILES = 16

Progress = Callable[[str, int, int], None]
"""Called with a graph's name, the pieces of the whole export that are written, and how many there are."""


def build_graphs(
    folder: Path,
    checkpoint: Checkpoint,
    model: ModelConfig,
    recipe: Recipe,
    builders: Sequence[NewBuilder],
    samples: Sequence[Sample],
    progress: Progress,
) -> None:
    """Write every graph once by each builder, all of them with the same rounded weights.

    Args:
        folder: Where to.
        checkpoint: The weights, which smoothing changes.
        model: Whose they are.
        recipe: Which matrix gets which number format.
        builders: One for each target.
        samples: What the rounding is fitted to; without any, every value is rounded by itself.
        progress: Called after every layer.
    """
    threads = available_cores()
    if tiles := list(islice(tiles_of(samples), SMOOTHING_TILES)):
        smooth(VisionLayers(checkpoint, model, folder, threads), tiles)
    # a piece per layer, one for the connector, the token table and the head each
    pieces, done = len(builders) * (model.vision.num_hidden_layers + model.text.num_hidden_layers + 3), count(1)

    def on_layer(name: str) -> None:
        progress(name, next(done), pieces)

    def build(names: Sequence[str], rounding: Rounding) -> None:
        for name in names:
            for new_builder in builders:
                builder = new_builder(folder, name, recipe, partial(on_layer, name), rounding)
                try:
                    GRAPHS[name](builder, checkpoint, model)
                    builder.save(version("smol-edge"))
                finally:
                    builder.close()

    build(BEFORE_THE_DECODER, round_to_nearest)
    with ExitStack() as stack:
        rounding: Rounding = round_to_nearest
        if samples:
            on_sample = partial(progress, "calibration set")
            embedded = embed_samples(samples, checkpoint, model, recipe, folder, threads, on_sample)
            rounding = CalibratedRounding(DecoderLayers(checkpoint, model, folder, threads), embedded)
        if samples and len(builders) > 1:
            scratch = stack.enter_context(TemporaryDirectory(dir=folder, ignore_cleanup_errors=True))
            rounding = RememberedRounding(rounding, Path(scratch))
        build(("decoder",), rounding)
