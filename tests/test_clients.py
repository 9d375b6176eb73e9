"""Programs of others against the server, unmodified, each in an environment of its own that the test makes.

    python -m pytest -m clients -rs

What cannot be installed is skipped, and said. An environment is kept in the folder SMOL_EDGE_CLIENTS, if that is set.
VLMEvalKit is ModelScope's release of it, or the checkout that SMOL_EDGE_VLMEVALKIT names. The webcam page is on no
registry: it is run where SMOL_EDGE_WEBCAM_PAGE names the index.html of ngxson/smolvlm-realtime-webcam.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import kit
import pytest
from family import write_checkpoint
from PIL import Image
from serving import EXAMPLES, command

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES as WIDTHS

pytestmark = pytest.mark.clients

CLIENTS = Path(__file__).parent / "clients"
PICTURE = EXAMPLES / "shapes.png"
RECIPES = Path(__file__).parents[1] / "docs" / "clients.md"
WITHOUT_TORCH = """
import sys, types
stub = sys.modules["docling.pipeline.asr_transformers"] = types.ModuleType("stub")
stub.TransformersAsrDecoder = None
"""
"""Before Docling 2.143 is imported where torch is not installed: one module of a pipeline for speech wants it."""
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
    # again in one that was kept: the last time may have been stopped half-way
    install = [python, "-m", "pip", "install", "--quiet", "--requirement", CLIENTS / f"{name}.txt"]
    if (result := subprocess.run(install, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"{name} cannot be installed: {result.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.parametrize("name", ["openai", "langchain", "llm", "llamaindex", "haystack", "schemathesis"])
def test_a_client(name: str, url: str, home: Path) -> None:
    run([environment(home, name), CLIENTS / f"drive_{name}.py", url, PICTURE])


def recipe(title: str, url: str) -> str:
    """What docs/clients.md has for a client, with the demonstration model of a server."""
    (text,) = re.findall(
        rf"^## {title}\n.*?^```python\n(.*?)^```", RECIPES.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return text.replace("http://127.0.0.1:8080", url).replace("smolvlm-256m", "demo")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("openai", "openai"),
        ("LangChain", "langchain"),
        ("LlamaIndex", "llamaindex"),
        ("Haystack", "haystack"),
        ("Ray Data", "ray"),
    ],
)
def test_a_recipe(title: str, name: str, url: str, home: Path, tmp_path: Path) -> None:
    Image.open(PICTURE).convert("RGB").save(tmp_path / "photo.jpg", quality=95)
    said = run([environment(home, name), "-c", recipe(title, url)], tmp_path)
    assert "The picture shows a large red circle at the top left" in said


@pytest.fixture(scope="module")
def granite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a tiny granite-docling, whose answers are chance."""
    folder = tmp_path_factory.mktemp("granite")
    checkpoint = write_checkpoint(folder / "checkpoint", "granite-docling-258M")
    bundle = export_checkpoint(checkpoint, folder / "bundle", WIDTHS["fp32"])
    with command("--model", f"granite-docling={bundle}") as (address, _):
        yield address


def test_docling(granite_url: str, home: Path) -> None:
    run([environment(home, "docling"), CLIENTS / "drive_docling.py", granite_url])


def test_the_recipe_for_docling(granite_url: str, home: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 260), "white").save(tmp_path / "paper.pdf")
    run([environment(home, "docling"), "-c", WITHOUT_TORCH + recipe("Docling", granite_url)], tmp_path)


def test_vlmevalkit(url: str, home: Path) -> None:
    run([environment(home, "vlmevalkit"), CLIENTS / "drive_vlmevalkit.py", url, PICTURE, kit.unpacked(home)])


@pytest.fixture(scope="module")
def chromium(home: Path) -> Path:
    """A folder in which programs find Playwright and axe-core."""
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("needs chromium and npm")
    folder = home / "chromium"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules").exists():
        (folder / "package.json").write_text('{"private": true}')
        install = ["npm", "install", "--silent", "playwright-core", "axe-core"]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            pytest.skip("playwright-core cannot be installed")
    for program in CLIENTS.glob("*.mjs"):
        shutil.copy(program, folder)
    return folder


def test_the_page(url: str, chromium: Path) -> None:
    run(["node", chromium / "page.mjs", url, PICTURE, CHROMIUM])


def test_a_page_from_disk(url: str, chromium: Path) -> None:
    run(["node", chromium / "webcam.mjs", url, CHROMIUM])


def test_the_webcam_page(url: str, chromium: Path) -> None:
    """As it is, from disk; the address of the server is put into its field."""
    if not (page := os.environ.get("SMOL_EDGE_WEBCAM_PAGE")):
        pytest.skip("no licence lets the page be kept here: SMOL_EDGE_WEBCAM_PAGE names its index.html")
    run(["node", chromium / "webcam.mjs", url, CHROMIUM, page])


def test_a_page_from_disk_is_told_of_the_flag(chromium: Path) -> None:
    with command() as (url, process):
        result = subprocess.run(["node", chromium / "webcam.mjs", url, CHROMIUM], capture_output=True, check=False)
        assert result.returncode, "refused by default: a frame of any website has that origin, too"
        assert process.stderr is not None
        assert "--cors null lets it ask" in process.stderr.readline()


def run(command: list, folder: Path | None = None) -> str:
    result = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=1800, check=False
    )
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-2000:]}"
    return result.stdout
