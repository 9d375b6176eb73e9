"""How a target gets the codes of a matrix: the seam between a graph being built and `quantize/`."""

from collections.abc import Callable

from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.quantize import BlockQuantized, Format, round_blocks

Rounding = Callable[[Weight, Format], BlockQuantized]
"""The codes of a matrix in a format of blocks; asked once for each, in the order in which a graph uses them."""


def round_to_nearest(weight: Weight, format_: Format) -> BlockQuantized:
    """Every value by itself; needs no calibration."""
    return round_blocks(weight.load(), format_.bits, format_.block_size, symmetric=format_.symmetric)
