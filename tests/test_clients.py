"""Programs of others against the server, unmodified, each in an environment of its own that the test makes.

    python -m pytest -m clients -rs

What cannot be installed is skipped, and said. An environment is kept in the folder SMOL_EDGE_CLIENTS, if that is set.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import EXAMPLES, command

pytestmark = pytest.mark.clients

CLIENTS = Path(__file__).parent / "clients"
PICTURE = EXAMPLES / "shapes.png"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with command("--parallel", "4", "--cors", "null") as (address, _):
        yield address


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SMOL_EDGE_CLIENTS")
    return Path(kept) if kept else tmp_path_factory.mktemp("clients")


def environment(home: Path, name: str) -> Path:
    """The interpreter of an environment that has what tests/clients/NAME.txt names."""
    folder = home / name
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", CLIENTS / f"{name}.txt"]
        if (result := subprocess.run(install, capture_output=True, text=True, check=False)).returncode:
            shutil.rmtree(folder)
            pytest.skip(f"{name} cannot be installed: {result.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.parametrize("name", ["openai", "langchain", "llm", "llamaindex", "haystack", "schemathesis"])
def test_a_client(name: str, url: str, home: Path) -> None:
    run([environment(home, name), CLIENTS / f"drive_{name}.py", url, PICTURE])


@pytest.mark.parametrize(("program", "picture"), [("page.mjs", [PICTURE]), ("webcam.mjs", [])])
def test_in_chromium(program: str, picture: list[Path], url: str, home: Path) -> None:
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("needs chromium and npm")
    folder = home / "chromium"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules").exists():
        (folder / "package.json").write_text('{"private": true}')
        install = ["npm", "install", "--silent", "playwright-core", "axe-core"]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            pytest.skip("playwright-core cannot be installed")
    shutil.copy(CLIENTS / program, folder)
    run(["node", folder / program, url, *picture, CHROMIUM])


def run(command: list) -> None:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-2000:]}"
