"""The same answers on an emulated processor without VNNI, whose byte products overflow unless care is taken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.machine import byte_products_overflow
from smolvlm_edge.quantize import RECIPES, with_vision

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
import numpy as np
import smolvlm_edge.graphs.onnxruntime as engine
engine.processor_flags = lambda: ["avx2"]  # the emulator shows the flags of the processor below it
graphs = engine.OnnxRuntimeEngine(threads=1)
bundle, out = Path(sys.argv[1]), sys.argv[2]
random = np.random.default_rng(0)
features = graphs.graph(bundle / "vision_encoder.onnx")(random.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32))
logits = graphs.decoder(bundle / "decoder.onnx")(random.standard_normal((40, 64), np.float32), 40)
np.savez(out, features=features, logits=logits)
"""


@pytest.mark.parametrize(
    ("machine", "flags", "overflow"),
    [
        ("x86_64", ["avx2"], True),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["avx512f", "avx512_vnni"], False),
        ("AMD64", [], True),
        ("aarch64", [], False),
        ("arm64", [], False),
    ],
)
def test_which_processors_need_care(machine: str, flags: list[str], overflow: bool) -> None:
    assert byte_products_overflow(machine, flags) is overflow


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
    engine = OnnxRuntimeEngine(threads=1)
    pixel_values = random.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    features = engine.graph(bundle / "vision_encoder.onnx")(pixel_values)
    logits = engine.decoder(bundle / "decoder.onnx")(random.standard_normal((40, 64), np.float32), 40)
    bound = 1e-5 if quant == "fp32" else 0.03
    for name, here in (("features", features), ("logits", logits)):
        assert np.linalg.norm(emulated[name] - here) <= bound * np.linalg.norm(here), name
