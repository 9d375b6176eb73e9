"""Arrays -> packed arrays, numpy only: how weights are rounded, packed and which width each one gets."""

from smolvlm_edge.quantize.recipes import RECIPES, Format, Recipe
from smolvlm_edge.quantize.rounding import BlockQuantized, Floats, RowQuantized, round_blocks, round_rows

__all__ = ["RECIPES", "BlockQuantized", "Floats", "Format", "Recipe", "RowQuantized", "round_blocks", "round_rows"]
