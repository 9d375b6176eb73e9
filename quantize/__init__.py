"""Arrays -> packed arrays, numpy only: how weights are rounded, packed and which width each one gets."""

from smolvlm_edge.quantize.recipes import (
    EXACT_BITS,
    INT4_SMALL_BLOCKS,
    INT8_BLOCKS,
    RECIPES,
    VISION_FORMATS,
    Format,
    Kind,
    Ranges,
    Recipe,
    with_vision,
)
from smolvlm_edge.quantize.rounding import BlockQuantized, Floats, RowQuantized, byte_grid, round_blocks, round_rows

__all__ = [
    "EXACT_BITS",
    "INT4_SMALL_BLOCKS",
    "INT8_BLOCKS",
    "RECIPES",
    "VISION_FORMATS",
    "BlockQuantized",
    "Floats",
    "Format",
    "Kind",
    "Ranges",
    "Recipe",
    "RowQuantized",
    "byte_grid",
    "round_blocks",
    "round_rows",
    "with_vision",
]
