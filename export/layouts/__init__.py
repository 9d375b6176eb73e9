"""What else a bundle's graphs can be arranged as: one module for each program that reads them."""

from smolvlm_edge.export.layouts.layout import Layout, check_layout_output, export_as
from smolvlm_edge.export.layouts.optimum import OPTIMUM
from smolvlm_edge.export.layouts.transformersjs import TRANSFORMERS_JS

LAYOUTS = {"optimum": OPTIMUM, "transformers.js": TRANSFORMERS_JS}
"""By the name that `smol-edge export --layout` takes."""

__all__ = ["LAYOUTS", "Layout", "check_layout_output", "export_as"]
