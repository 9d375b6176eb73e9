"""What this plug-in needs of Docling's insides; tried with docling-slim 2.143.0.

Docling has no hook for engines that read pages: `VlmEngineType` is a closed enumeration and `create_vlm_engine` a chain
of ifs (docling/models/inference_engines/vlm/factory.py). What can be done from outside is to put a stage of one's own
into `VlmPipeline`; the names that this takes are imported here and nowhere else.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

STUBBED = "docling.pipeline.asr_transformers"
"""The one module of Docling 2.143 that imports torch although nobody asked for it: it decodes speech."""


def _let_docling_do_without_torch() -> None:
    """Put an empty module in the place of Docling's speech decoder, if torch is not installed and it could not work."""
    if find_spec("torch") is not None or STUBBED in sys.modules:
        return
    stub = ModuleType(STUBBED, "Stands in for what needs torch, which is not installed.")
    stub.TransformersAsrDecoder = None  # type: ignore[attr-defined]
    sys.modules[STUBBED] = stub


_let_docling_do_without_torch()

from docling.datamodel.base_models import ApiImageRequestResult, VlmStopReason  # noqa: E402
from docling.datamodel.pipeline_options import (  # noqa: E402
    PictureDescriptionBaseOptions,
    VlmConvertOptions,
    VlmPipelineOptions,
)
from docling.models.inference_engines.vlm.base import BaseVlmEngine, VlmEngineInput, VlmEngineOutput  # noqa: E402
from docling.models.picture_description_base_model import PictureDescriptionBaseModel  # noqa: E402
from docling.models.stages.vlm_convert.vlm_convert_model import VlmConvertModel  # noqa: E402
from docling.pipeline.vlm_pipeline import VlmPipeline  # noqa: E402

__all__ = [
    "ApiImageRequestResult",
    "BaseVlmEngine",
    "PictureDescriptionBaseModel",
    "PictureDescriptionBaseOptions",
    "VlmConvertModel",
    "VlmConvertOptions",
    "VlmEngineInput",
    "VlmEngineOutput",
    "VlmPipeline",
    "VlmPipelineOptions",
    "VlmStopReason",
    "stage_of",
]


def stage_of(options: VlmConvertOptions, engine: BaseVlmEngine) -> VlmConvertModel:
    """The stage that reads pages, with an engine that Docling does not know of."""
    stage = VlmConvertModel.__new__(VlmConvertModel)  # its __init__ would make one of Docling's own engines
    stage.enabled, stage.options, stage.engine = True, options, engine
    return stage
