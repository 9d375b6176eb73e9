"""A checkpoint -> the graphs of a bundle, for one engine's format or for several."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.architecture import GRAPHS
from smolvlm_edge.export.budget import fit_recipe, room_for_matrices
from smolvlm_edge.export.calibration import (
    CalibratedRounding,
    DecoderLayers,
    RememberedRounding,
    Sample,
    VisionLayers,
    embed_samples,
    observe_ranges,
    sensitivities,
    tiles_of,
)
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint, Weight
from smolvlm_edge.export.rounding import Rounding, round_to_nearest
from smolvlm_edge.export.scaling import scale_columns
from smolvlm_edge.export.smoothing import smooth
from smolvlm_edge.export.targets import NewBuilder
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.quantize import Recipe, with_vision

SMOOTHING_TILES = 16
ROUNDING_TILES = 32
"""A tile of a 256M model has 1,024 patches."""

Progress = Callable[[str, int, int], None]
"""Called with a graph's name, the pieces of the whole export that are written, and how many there are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the weights were rounded."""

    recipe: Recipe
    """What was asked for, or what it was widened to."""
    bits: dict[str, int]
    """Of every matrix, by its name."""
    rescaled: list[str]
    """Names of the weights that smoothing and scaling changed before."""


def build_graphs(
    folder: Path,
    checkpoint: Checkpoint,
    model: ModelConfig,
    recipe: Recipe,
    builders: Sequence[NewBuilder],
    samples: Sequence[Sample],
    target_bytes: int | None,
    progress: Progress,
) -> Outcome:
    """Write every graph once by each builder, all of them with the same rounded weights.

    Args:
        folder: Where to.
        checkpoint: The weights, which smoothing and scaling change.
        model: Whose they are.
        recipe: Which matrix gets which number format.
        builders: One for each target.
        samples: What the rounding is fitted to; without any, every value is rounded by itself.
        target_bytes: What the bundle may take, if `recipe` is to be widened as far as that allows.
        progress: Called after every layer.

    Raises:
        RequestError: `recipe` takes more than `target_bytes`.
    """
    threads = available_cores()
    vision = VisionLayers(checkpoint, model, folder, threads)
    decoder = DecoderLayers(checkpoint, model, folder, threads)
    write = _Writer(folder, checkpoint, model, builders, progress)
    rescaled: list[str] = []
    if recipe.kinds & {"rows", "static"} and (tiles := list(islice(tiles_of(samples), SMOOTHING_TILES))):
        rescaled = smooth(vision, tiles)
        recipe = recipe.with_ranges(observe_ranges(vision, tiles, recipe))
    vision_rounding = _vision_rounding(vision, samples, recipe)
    write("vision_encoder", recipe, vision_rounding)
    write("connector", recipe, round_to_nearest)
    if not (samples and recipe.is_fitted):
        write("embed_tokens", recipe, round_to_nearest)
        write("decoder", recipe, round_to_nearest)
        return Outcome(recipe, write.bits, rescaled)
    # a vision encoder that was fitted is not built once more for this: with eight bits it sees nearly the same
    seeing = recipe if vision_rounding is round_to_nearest else with_vision(recipe, "int8-weights")
    embedded = embed_samples(samples, checkpoint, model, seeing, folder, threads, partial(progress, "calibration set"))
    rescaled += scale_columns(decoder, embedded, partial(progress, "column scales"))
    if target_bytes is not None:
        costs = sensitivities(decoder, samples, embedded, recipe, partial(progress, "sensitivities"))
        room = room_for_matrices(target_bytes, folder, model)
        recipe = fit_recipe(recipe, [*_text_matrices(decoder)], costs, room)
    write("embed_tokens", recipe, round_to_nearest)
    write("decoder", recipe, CalibratedRounding(decoder, embedded, recipe))
    return Outcome(recipe, write.bits, rescaled)


def _vision_rounding(vision: VisionLayers, samples: Sequence[Sample], recipe: Recipe) -> Rounding:
    is_narrow = any(recipe.is_narrow(weight.name) for weight, _ in vision.matrices(0))
    tiles = list(islice(tiles_of(samples), ROUNDING_TILES)) if is_narrow else []
    return CalibratedRounding(vision, vision.embed(tiles), recipe) if tiles else round_to_nearest


def _text_matrices(layers: DecoderLayers) -> Iterator[Weight]:
    yield layers.checkpoint.weights[TOKEN_TABLE]
    for index in range(len(layers) + 1):
        yield from (weight for weight, _ in layers.matrices(index))


class _Writer:
    """Writes graphs by every builder."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        model: ModelConfig,
        builders: Sequence[NewBuilder],
        progress: Progress,
    ) -> None:
        self._folder, self._checkpoint, self._model, self._builders = folder, checkpoint, model, builders
        self.bits: dict[str, int] = {}
        # a piece per layer, one for the connector, the token table and the head each
        pieces = len(builders) * (model.vision.num_hidden_layers + model.text.num_hidden_layers + 3)
        done = count(1)
        self._on_layer = lambda name: progress(name, next(done), pieces)

    def __call__(self, name: str, recipe: Recipe, rounding: Rounding) -> None:
        with TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as scratch:
            if len(self._builders) > 1 and isinstance(rounding, CalibratedRounding):
                rounding = RememberedRounding(rounding, Path(scratch))
            for new_builder in self._builders:
                builder = new_builder(self._folder, name, recipe, partial(self._on_layer, name), rounding)
                try:
                    GRAPHS[name](builder, self._checkpoint, self._model)
                    builder.save(version("smol-edge"))
                    self.bits.update((weight, format_.bits) for weight, format_ in builder.formats.items())
                finally:
                    builder.close()
