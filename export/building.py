"""A checkpoint -> the graphs of a bundle, for one engine's format or for several."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from smolvlm_edge.config import ModelConfig
from smolvlm_edge.export.architecture import GRAPHS
from smolvlm_edge.export.budget import fit_recipe, room_for_layers
from smolvlm_edge.export.calibration import (
    CalibratedRounding,
    DecoderLayers,
    RememberedRounding,
    Sample,
    VisionLayers,
    embed_samples,
    sensitivities,
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
    target_bytes: int | None,
    progress: Progress,
) -> tuple[Recipe, dict[str, int]]:
    """Write every graph once by each builder, all of them with the same rounded weights.

    Args:
        folder: Where to.
        checkpoint: The weights, which smoothing changes.
        model: Whose they are.
        recipe: Which matrix gets which number format.
        builders: One for each target.
        samples: What the rounding is fitted to; without any, every value is rounded by itself.
        target_bytes: What the bundle may take, if `recipe` is to be widened as far as that allows.
        progress: Called after every layer.

    Returns:
        `recipe`, or the wider one; and the bits of every matrix, by its name.

    Raises:
        RequestError: `recipe` takes more than `target_bytes`.
    """
    layers = DecoderLayers(checkpoint, model, folder, available_cores())
    bits: dict[str, int] = {}
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
                    bits.update((weight, format_.bits) for weight, format_ in builder.formats.items())
                finally:
                    builder.close()

    if "rows" in recipe.kinds and (tiles := list(islice(tiles_of(samples), SMOOTHING_TILES))):
        smooth(VisionLayers(checkpoint, model, folder, layers.threads), tiles)
    build(BEFORE_THE_DECODER, round_to_nearest)
    if not (samples and recipe.is_fitted):
        build(("decoder",), round_to_nearest)
        return recipe, bits
    embedded = embed_samples(
        samples, checkpoint, model, recipe, folder, layers.threads, partial(progress, "calibration set")
    )
    if target_bytes is not None:
        costs = sensitivities(layers, embedded, recipe, partial(progress, "sensitivities"))
        matrices = [weight for index in range(len(layers)) for weight, _ in layers.matrices(index)]
        room = room_for_layers(target_bytes, folder, checkpoint, model, recipe)
        recipe = fit_recipe(recipe, matrices, costs, room)
    with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        rounding: Rounding = CalibratedRounding(layers, embedded)
        build(("decoder",), rounding if len(builders) == 1 else RememberedRounding(rounding, Path(scratch)))
    return recipe, bits
