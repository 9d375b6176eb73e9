"""The same answers on an emulated processor without VNNI, whose byte products overflow unless care is taken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine, run_bytes
from smolvlm_edge.graphs.overflow import PRODUCT, byte_products_overflow, overflow_told
from smolvlm_edge.quantize import RECIPES, with_vision

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
import numpy as np
import smolvlm_edge.graphs.overflow as overflow
import smolvlm_edge.graphs.onnxruntime as engine
overflow.processor_flags = tuple  # the emulator shows the flags of the processor below it; so the engine is asked
graphs = engine.OnnxRuntimeEngine(threads=1)
bundle, out = Path(sys.argv[1]), sys.argv[2]
random = np.random.default_rng(0)
features = graphs.graph(bundle / "vision_encoder.onnx")(random.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32))
logits = graphs.decoder(bundle / "decoder.onnx")(random.standard_normal((40, 64), np.float32), 40)
np.savez(out, features=features, logits=logits, overflow=overflow.byte_products_overflow())
"""


@pytest.mark.parametrize(
    ("machine", "flags", "system", "overflow"),
    [
        ("x86_64", ["avx2"], "linux", True),
        ("x86_64", ["avx2", "avx_vnni"], "linux", False),
        ("x86_64", ["avx512f", "avx512_vnni"], "darwin", False),
        ("AMD64", ["avx2", "avx512f"], "win32", None),
        ("x86_64", [], "linux", None),
        ("ARM64", ["asimd"], "win32", False),
        ("aarch64", [], "linux", False),
        ("arm64", [], "darwin", False),
    ],
)
def test_what_a_system_tells(machine: str, flags: list[str], system: str, overflow: bool | None) -> None:
    assert overflow_told(machine, flags, system) is overflow


def test_the_graph_that_asks_the_engine() -> None:
    """As in https://onnx.ai/onnx/operators/onnx__MatMulInteger.html, for operands whose sum fits 16 bits."""
    a, b = np.array([[1, 255], [3, 4]], np.uint8), np.array([[5, -6], [7, 8]], np.int8)
    assert run_bytes(PRODUCT, {"a": a, "b": b}).tolist() == [[1790, 2034], [43, 14]]


def test_where_the_system_says_nothing_the_engine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of the test both ways come to the same."""
    told = byte_products_overflow()
    monkeypatch.setattr("smolvlm_edge.graphs.overflow.processor_flags", tuple)
    byte_products_overflow.cache_clear()
    assert byte_products_overflow() is told


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-user")
@pytest.mark.parametrize("quant", ["fp32", "int8", "int4", "int8-static"])
def test_answers_of_an_emulated_haswell(tiny_bundle, tmp_path: Path, quant: str) -> None:
    """Rounding differs with the kernels, an overflow would be off by a fifth."""
    out = tmp_path / "emulated.npz"
    if quant == "int8-static":
        bundle = export_checkpoint(CHECKPOINT, tmp_path / "static", with_vision(RECIPES["int8"], quant))
    else:
        bundle = tiny_bundle("tiny-idefics3", quant)
    python, folders = str(Path(sys.executable).resolve()), [path for path in sys.path if Path(path).is_dir()]
    folders.append(str(Path(__file__).parent.parent))
    command = ["qemu-x86_64", "-cpu", "Haswell", python, "-c", PROGRAM, str(bundle), str(out), ":".join(folders)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    emulated, random = np.load(out), np.random.default_rng(0)
    assert emulated["overflow"]
    engine = OnnxRuntimeEngine(threads=1)
    pixel_values = random.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    features = engine.graph(bundle / "vision_encoder.onnx")(pixel_values)
    logits = engine.decoder(bundle / "decoder.onnx")(random.standard_normal((40, 64), np.float32), 40)
    bound = 1e-5 if quant == "fp32" else 0.03
    for name, here in (("features", features), ("logits", logits)):
        assert np.linalg.norm(emulated[name] - here) <= bound * np.linalg.norm(here), name
