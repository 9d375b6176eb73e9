"""Rounding by what the model does rather than by what its weights are: a calibration set runs through its layers."""

from smolvlm_edge.export.calibration.embedding import embed_samples
from smolvlm_edge.export.calibration.layers import LOGITS, DecoderLayers, VisionLayers
from smolvlm_edge.export.calibration.ranges import observe_ranges
from smolvlm_edge.export.calibration.rounding import CalibratedRounding, RememberedRounding
from smolvlm_edge.export.calibration.samples import (
    Sample,
    SampleMaker,
    bundled_samples,
    enough,
    folder_samples,
    tiles_of,
)
from smolvlm_edge.export.calibration.sensitivity import sensitivities

__all__ = [
    "LOGITS",
    "CalibratedRounding",
    "DecoderLayers",
    "RememberedRounding",
    "Sample",
    "SampleMaker",
    "VisionLayers",
    "bundled_samples",
    "embed_samples",
    "enough",
    "folder_samples",
    "observe_ranges",
    "sensitivities",
    "tiles_of",
]
