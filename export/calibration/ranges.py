"""Between which values lies what a matrix is multiplied with, for formats that have to know it in advance."""

from collections.abc import Sequence

from smolvlm_edge.export.calibration.layers import VisionLayers
from smolvlm_edge.quantize import Floats, Ranges, Recipe


def observe_ranges(layers: VisionLayers, tiles: Sequence[Floats], recipe: Recipe) -> Ranges:
    """Smallest and largest value that every static matrix of the vision encoder is multiplied with.

    Args:
        layers: The vision encoder.
        tiles: pixel_values [3, H, W] of some tiles.
        recipe: Says which matrices are static; those whose range it knows are left out.
    """
    ranges: dict[str, tuple[float, float]] = {}
    hidden = layers.embed(tiles) if "static" in recipe.kinds else []
    for index in range(len(layers) if hidden else 0):
        formats = {weight.name: recipe.format_of(weight.name) for weight, _ in layers.matrices(index)}
        unknown = [name for name, format_ in formats.items() if format_.kind == "static" and format_.low is None]
        for values in layers.watch(index, hidden, unknown):
            for name in unknown:
                low, high = ranges.get(name, (0.0, 0.0))
                ranges[name] = min(low, float(values[name].min())), max(high, float(values[name].max()))
    return ranges
