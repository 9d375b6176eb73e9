"""What else a bundle's graphs can be arranged as: one module for each program that reads them."""

from smolvlm_edge.export.layouts.layout import Layout, check_layout_output, export_as
from smolvlm_edge.export.layouts.optimum import OPTIMUM

LAYOUTS = {"optimum": OPTIMUM}
"""By the name that `smol-edge export --layout` takes."""

__all__ = ["LAYOUTS", "Layout", "check_layout_output", "export_as"]
