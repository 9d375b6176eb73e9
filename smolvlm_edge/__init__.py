"""Run SmolVLM and every other Idefics3-type vision-language model on a plain CPU.

    from smolvlm_edge import SmolVLM

    model = SmolVLM.load("smolvlm-256m-int4")          # a folder made by `smol-edge export`
    print(model.generate("photo.jpg", "Describe this image."))
    for chunk in model.stream(["a.png", "b.png"], "What changed?"):
        print(chunk.text, end="", flush=True)

Importing this opens no engine; loading a model does, and opens no connection.
"""

from smolvlm_edge.errors import (
    DownloadError,
    EngineError,
    ExportError,
    ImageError,
    IntegrityError,
    ModelNotFoundError,
    RequestError,
    SmolEdgeError,
    UnsupportedModelError,
)
from smolvlm_edge.model import Answer, Chunk, GenerateOptions, SmolVLM
from smolvlm_edge.timings import Timings

__all__ = [
    "Answer",
    "Chunk",
    "DownloadError",
    "EngineError",
    "ExportError",
    "GenerateOptions",
    "ImageError",
    "IntegrityError",
    "ModelNotFoundError",
    "RequestError",
    "SmolEdgeError",
    "SmolVLM",
    "Timings",
    "UnsupportedModelError",
]
