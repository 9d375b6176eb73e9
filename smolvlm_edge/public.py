"""The names that an application takes from the package itself, which imports this when one of them is asked for."""

from smolvlm_edge.chat import Chat
from smolvlm_edge.conversation.request import Request
from smolvlm_edge.errors import (
    BusyError,
    ContextError,
    DownloadError,
    EngineError,
    ExportError,
    ImageError,
    IncompleteError,
    IntegrityError,
    ModelNotFoundError,
    RequestError,
    SmolEdgeError,
    StoppedError,
    UnsupportedModelError,
    VideoError,
)
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions
from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.pictures.video import Timeline, Video
from smolvlm_edge.store.bundles import LocalModel, local_models

__all__ = [
    "Answer",
    "BusyError",
    "Chat",
    "Chunk",
    "ContextError",
    "DownloadError",
    "EngineError",
    "ExportError",
    "GenerateOptions",
    "ImageError",
    "IncompleteError",
    "IntegrityError",
    "LocalModel",
    "Logprobs",
    "ModelNotFoundError",
    "Request",
    "RequestError",
    "SmolEdgeError",
    "SmolVLM",
    "StoppedError",
    "Timeline",
    "Timings",
    "UnsupportedModelError",
    "Video",
    "VideoError",
    "local_models",
]
