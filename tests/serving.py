"""A server within a test: the application without a socket, or the command on a free port."""

import base64
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the [server] extra")

from starlette.testclient import TestClient

from smolvlm_edge import SmolVLM
from smolvlm_edge.server.app import create_app
from smolvlm_edge.server.residents import Residents
from smolvlm_edge.server.settings import Settings

ROOT = Path(__file__).parents[1]
DEMO, EXAMPLES = ROOT / "demo" / "bundle", ROOT / "examples"
OWN = "http://127.0.0.1:8080"


@contextmanager
def client(
    settings: Settings | None = None, *, folders: dict[str, Path] | None = None, **options: Any
) -> Iterator[TestClient]:
    """A client of an application of its own, whose model is loaded."""
    load = partial(SmolVLM.load, threads=1)
    residents = Residents(folders or {"demo": DEMO}, load, **options)
    with TestClient(create_app(residents, settings), base_url=OWN) as http:
        while http.get("/health").status_code == 503:
            pass
        yield http


@contextmanager
def command(*arguments: str | Path, patch: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`smol-edge serve` with the demonstration model on a free port: its address, and its process."""
    program = f"{patch}\nfrom smolvlm_edge.cli import main\nmain()"
    line = [sys.executable, "-c", program, "serve", "--port", "0", "--threads", "1", *map(str, arguments)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = None
            while address is None:
                address = re.search(r"http://\S+", line := process.stderr.readline())
                assert line, process.wait()
            while httpx2.get(f"{address[0]}/health").status_code == 503:
                time.sleep(0.05)
            yield address[0], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def data_url(name: str = "shapes.png") -> str:
    return "data:image/png;base64," + base64.b64encode((EXAMPLES / name).read_bytes()).decode()


def picture(name: str = "shapes.png", **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(name), **fields}}


def noise(seed: int) -> dict[str, Any]:
    """A picture that no other is like."""
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"type": "image_url", "image_url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def ask(*parts: Any, **wishes: Any) -> dict[str, Any]:
    """A request about pictures and texts."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"messages": [{"role": "user", "content": content}], **wishes}


def events(text: str) -> list[Any]:
    """What a stream sent: its data, without comments."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
