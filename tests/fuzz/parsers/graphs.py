"""Graphs of strangers, for both engines: what passes the checks is opened, and answers.

A damaged graph that ends the process, computes for ever or takes all memory is a finding; that its answer is nonsense
is none.
"""

import json
from functools import cache
from hashlib import sha256
from pathlib import Path

from smolvlm_edge import SmolVLM
from smolvlm_edge.bundle import MANIFEST
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES
from tests.fuzz.parsers import EXAMPLES, TINY

GRAPHS = [f"{name}{suffix}" for name in ("vision_encoder", "decoder") for suffix in (".onnx", ".xml")]


@cache
def bundle(folder: Path) -> Path:
    """The tiny checkpoint's graphs for both engines."""
    return export_checkpoint(TINY, folder / "sound", RECIPES["int8"], targets=("onnx", "openvino"), calibration=None)


def seeds(folder: Path) -> list[bytes]:
    return [name.encode() + b"\n" + (bundle(folder) / name).read_bytes() for name in GRAPHS]


def parse(data: bytes, folder: Path) -> None:
    name, _, graph = data.partition(b"\n")
    damaged = name.decode(errors="replace") if name.decode(errors="replace") in GRAPHS else GRAPHS[len(data) % 4]
    place = folder / "damaged"
    place.mkdir(exist_ok=True)
    for file in bundle(folder).iterdir():
        if not (place / file.name).exists():
            (place / file.name).symlink_to(file)
    _replace(place / damaged, graph)
    manifest = json.loads((bundle(folder) / MANIFEST).read_text())
    manifest["files"][damaged].update(size=len(graph), sha256=sha256(graph).hexdigest())  # its maker wrote that, too
    _replace(place / MANIFEST, json.dumps(manifest).encode())
    try:
        with SmolVLM.load(place, engine="onnxruntime" if damaged.endswith(".onnx") else "openvino", threads=1) as model:
            model.generate(EXAMPLES / "shapes.png", "describe", detail="low", max_tokens=2, timeout=5)
    finally:
        _replace(place / damaged, None)


def _replace(place: Path, data: bytes | None) -> None:
    place.unlink(missing_ok=True)
    if data is not None:
        place.write_bytes(data)
