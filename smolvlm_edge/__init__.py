"""Run SmolVLM and every other Idefics3-type vision-language model on a plain CPU.

    from smolvlm_edge import SmolVLM, Video

    model = SmolVLM.load("smolvlm-256m-int4")          # a folder made by `smol-edge export`
    print(model.generate("photo.jpg", "Describe this image."))
    for chunk in model.stream(["a.png", "b.png"], "What changed?"):
        print(chunk.text, end="", flush=True)
    print(model.generate(Video("clip.mp4", start=10, end=20), "What happens?"))
    chat = model.chat()
    print(chat.ask("What is this?", "photo.jpg"), chat.ask("Which colour has it?"))

Importing this opens no engine; loading a model does, and opens no connection.
"""

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
