"""A model's name -> its folder."""

import os
from importlib.resources import files
from pathlib import Path

from smolvlm_edge.errors import ModelNotFoundError

DEMO = "demo"
DEFAULT_VARIABLE = "SMOL_EDGE_MODEL"
"""The environment variable that names the model where no other is named."""


def default_model() -> str:
    """The model that answers when none is named."""
    return os.environ.get(DEFAULT_VARIABLE) or DEMO


def locate(model: str | Path) -> Path:
    """The folder of a bundle.

    Args:
        model: `demo`, the demonstration model that comes with the package, or a bundle's folder (`./demo` is one).

    Raises:
        ModelNotFoundError: The demonstration model was left out of this installation.
    """
    if model != DEMO:
        return Path(model)
    folder = Path(str(files("smolvlm_edge.demo") / "bundle"))
    if not folder.is_dir():
        raise ModelNotFoundError("this installation has no demonstration model: name a bundle with --model")
    return folder
