"""Real programs, each in an environment of its own: `make integrations`.

Left out of an ordinary run, because each of them installs what its program needs (a minute or more each).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = "SMOL_EDGE_ENVIRONMENTS"
"""Names the folder in which they are made, and found again by the next run."""


@pytest.fixture(scope="session")
def environment() -> Callable[..., Path]:
    """environment(name, *requirements): the Python of an environment that has smol-edge and these."""
    home = os.environ.get(ENVIRONMENTS)
    if not home:
        pytest.skip(f"installs programs; set {ENVIRONMENTS} to a folder for them (make integrations)")

    @cache
    def made(name: str, *requirements: str) -> Path:
        python = Path(home).resolve() / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True, cwd=ROOT)
        return python

    return made
