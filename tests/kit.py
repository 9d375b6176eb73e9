"""VLMEvalKit without the packages that its other models and data sets want: what is not installed is stood in for.

The kit's own modules are never stood in for. `STOOD_IN` says what was.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

RELEASE = "ms-vlmeval==0.0.20"
"""The kit as ModelScope puts it on PyPI; its makers publish none themselves."""
STOOD_IN: list[str] = []
"""Names of the packages that were not installed and that the kit imported."""


def unpacked(home: Path) -> Path:
    """A folder with the package `vlmeval`: the one that SMOL_EDGE_VLMEVALKIT names, else the release, below `home`."""
    if named := os.environ.get("SMOL_EDGE_VLMEVALKIT"):
        return Path(named)
    folder = home.resolve() / RELEASE
    if not folder.exists():
        partial = folder.with_name("vlmeval.partial")
        install = ["install", "--quiet", "--no-deps", "--target", str(partial), RELEASE]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        partial.rename(folder)
    return folder


class Anything(type):
    """A class that may be inherited from, called, and asked for whatever it is asked for."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {"__init__": lambda self, *args, **kwargs: None, "__call__": lambda *args: args[-1]})


class StandIn(ModuleType):
    """A module in which everything is there and nothing does anything."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(Anything("Nothing", (), {}), name)


class Finder(MetaPathFinder, Loader):
    """Asked last; what it finds is not there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if top == "vlmeval" or (name != top and top not in STOOD_IN) or not _asked_by_the_kit():
            return None
        if name == top:
            STOOD_IN.append(name)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def _asked_by_the_kit() -> bool:
    """Whether the import stands in the kit: other packages look for packages that they can do without."""
    frame = sys._getframe(2)
    while frame.f_back and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("vlmeval")


def use_kit(folder: Path) -> None:
    """Make `import vlmeval` find the package in a folder: a checkout, or site-packages."""
    sys.path.insert(0, str(folder))
    sys.meta_path.append(Finder())
