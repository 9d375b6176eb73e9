"""From a Hugging Face checkpoint to a bundle of graphs, without torch and without transformers."""

from smolvlm_edge.export.adapter import Adapter
from smolvlm_edge.export.pipeline import Progress, check_output, check_targets, export_checkpoint

__all__ = ["Adapter", "Progress", "check_output", "check_targets", "export_checkpoint"]
