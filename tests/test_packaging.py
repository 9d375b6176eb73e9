"""An application that was frozen by PyInstaller with our hook answers where there is no Python, and leaves nothing."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from PIL import Image, ImageGrab, features
from test_demo import DESCRIPTION, SHAPES
from test_privacy import linux_only

from smolvlm_edge.pyinstaller import get_hook_dirs

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "desktop" / "describe.spec"
SCREENSHOT = "SMOL_EDGE_SCREENSHOT"
"""Environment variable: where to keep the picture of the window."""


def test_pyinstaller_is_told_where_the_hook_is() -> None:
    (entry,) = (each for each in entry_points(group="pyinstaller40") if each.value.startswith("smolvlm_edge"))
    assert entry.load() is get_hook_dirs
    assert (Path(*get_hook_dirs()) / "hook-smolvlm_edge.py").is_file()


def missing() -> str:
    """What this machine lacks to freeze a window and look at it."""
    for there, what in (
        (importlib.util.find_spec("PyInstaller"), "PyInstaller: pip install 'smol-edge[packaging]'"),
        (importlib.util.find_spec("tkinter"), "tkinter: install Python's Tk package (apt-get install python3-tk)"),
        (shutil.which("Xvfb"), "Xvfb: apt-get install xvfb"),
        (features.check("xcb"), "a Pillow that can take screenshots (XCB)"),
    ):
        if not there:
            return f"needs {what}"
    return ""


def windowed(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that freezes the window or opens it."""
    lacking = missing()
    return pytest.mark.packaging(linux_only(pytest.mark.skipif(bool(lacking), reason=lacking or "complete")(test)))


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X server without a screen."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-br", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    number = os.read(reader, 16).decode().strip()
    assert number, "Xvfb does not start"
    yield f":{number}"
    server.terminate()
    server.wait()
    os.close(reader)  # not before: the server may say its number again, and would die of a closed pipe


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, frozen from the wheel: PyInstaller does not see into editable installations."""
    folder = tmp_path_factory.mktemp("frozen")
    python = [sys.executable, "-P", "-m"]
    site = str(folder / "site")
    for command in (
        ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        ["pip", "install", "--no-deps", "--no-index", "--find-links", str(folder), "--target", site, "smol-edge"],
        ["PyInstaller", "--distpath", str(folder / "dist"), "--workpath", str(folder / "work"), str(SPEC)],
    ):
        environment = os.environ | {"PYTHONPATH": site}
        result = subprocess.run(
            [*python, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(site)
    return folder / "dist" / "describe" / "describe"


@contextmanager
def started(program: Path, picture: Path, display: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    """The frozen program in a home of its own, where no Python is to be found."""
    environment = {"DISPLAY": display, "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
    process = subprocess.Popen([program, picture], env=environment, cwd=home, stdout=subprocess.PIPE, text=True)
    silence = threading.Timer(120, process.kill)
    silence.start()
    try:
        yield process
    finally:
        silence.cancel()
        process.terminate()
        process.communicate()


@windowed
def test_it_describes_a_picture_in_its_window(frozen: Path, display: str, tmp_path: Path) -> None:
    with started(frozen, SHAPES, display, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"shapes.png: {DESCRIPTION}\n"
        window = settled(display)
    assert list(tmp_path.iterdir()) == [], "nothing is left at home"
    colours = {colour for _, colour in window.getcolors(1 << 20)}
    with Image.open(SHAPES) as picture:
        shown = {colour for count, colour in picture.convert("RGB").getcolors(1 << 20) if count > 500}
    assert len(shown) == 4, "white, red, blue, green"
    assert shown <= colours
    if target := os.environ.get(SCREENSHOT):
        window.quantize(64).save(target, optimize=True)


@windowed
def test_it_says_what_is_wrong_with_a_file(frozen: Path, display: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    with started(frozen, tmp_path / "text.png", display, home) as process:
        assert process.stdout is not None
        assert "is no picture of a known format" in process.stdout.readline()
    assert list(home.iterdir()) == []


@windowed
def test_everything_an_application_may_need_is_frozen(frozen: Path) -> None:
    inside = frozen.parent / "_internal" / "smolvlm_edge"
    for packed, source in (
        (inside / "lock" / "models.lock", ROOT / "models.lock"),
        *((inside / "demo" / "bundle" / path.name, path) for path in (ROOT / "demo" / "bundle").iterdir()),
    ):
        assert packed.read_bytes() == source.read_bytes()


@windowed
def test_the_window_goes_on_while_the_model_works_and_another_picture_ends_the_answer(display: str) -> None:
    """The program itself with a model that waits for the window: whoever blocks the other never comes to an end."""
    program = f"""
import runpy, sys, threading
from pathlib import Path
from types import SimpleNamespace
import tkinter as tk
from smolvlm_edge import SmolVLM, StoppedError

seen = threading.Event()

def stream(self, picture, question, cancel):
    if picture.name == "shapes.png":
        yield SimpleNamespace(text="the first answer")
        assert seen.wait(60), "the window does not show what arrives"
        assert cancel.wait(60), "nobody cancels"
        raise StoppedError("cancelled")
    for text in ("the ", "second ", "answer"):
        yield SimpleNamespace(text=text, timings=SimpleNamespace(generated_tokens=3))

SmolVLM.stream = stream
desktop = runpy.run_path({str(SPEC.with_name("describe.py"))!r})
root = tk.Tk()
describer = desktop["Describer"]()
window = desktop["Window"](root, describer)

def look():
    text = window._answer.get("1.0", "end").strip()
    if text == "the first answer" and not seen.is_set():
        seen.set()
        window.open(Path({str(SHAPES.with_name("chart.png"))!r}))
    root.after(5, look if text != "the second answer" else root.destroy)

describer.start()
window.open(Path({str(SHAPES)!r}))
look()
root.mainloop()
describer.close()
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "chart.png: the second answer\n"


def settled(display: str) -> Image.Image:
    """What is on the screen, once it no longer changes."""
    before = None
    for _ in range(100):
        screen = ImageGrab.grab(xdisplay=display).convert("RGB")
        if before and screen.getbbox() and screen.tobytes() == before.tobytes():
            return screen.crop(screen.getbbox())
        before = screen
        time.sleep(0.2)
    raise AssertionError("the window never comes to rest")
