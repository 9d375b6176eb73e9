"""Run SmolVLM and every other Idefics3-type vision-language model on a plain CPU.

    from smolvlm_edge import SmolVLM, Video

    model = SmolVLM.load("smolvlm-256m-int4")          # a folder made by `smol-edge export`
    print(model.generate("photo.jpg", "Describe this image."))
    for chunk in model.stream(["a.png", "b.png"], "What changed?"):
        print(chunk.text, end="", flush=True)
    print(model.generate(Video("clip.mp4", start=10, end=20), "What happens?"))
    chat = model.chat()
    print(chat.ask("What is this?", "photo.jpg"), chat.ask("Which colour has it?"))

Importing this opens no engine; loading a model does, and opens no connection. What stands in `public` is imported when
one of its names is asked for: the command has to heed signals before that, and it takes a while.
"""

from importlib import import_module

TYPE_CHECKING = False  # that of typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from smolvlm_edge.public import *  # noqa: F403 - type checkers and editors find the names there


def __getattr__(name: str) -> "Any":
    if not name.startswith("__") or name == "__all__":
        public = import_module("smolvlm_edge.public")
        globals().update({each: getattr(public, each) for each in public.__all__}, __all__=public.__all__)
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
