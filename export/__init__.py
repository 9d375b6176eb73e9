"""From a Hugging Face checkpoint to a bundle of graphs, without torch and without transformers."""

from smolvlm_edge.export.pipeline import Progress, export_checkpoint

__all__ = ["Progress", "export_checkpoint"]
