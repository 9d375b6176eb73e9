"""Rounding by what the model does rather than by what its weights are: a calibration set runs through the decoder."""

from smolvlm_edge.export.calibration.layers import Layers
from smolvlm_edge.export.calibration.rounding import CalibratedRounding
from smolvlm_edge.export.calibration.samples import Sample, SampleMaker, bundled_samples, embed, folder_samples

__all__ = ["CalibratedRounding", "Layers", "Sample", "SampleMaker", "bundled_samples", "embed", "folder_samples"]
