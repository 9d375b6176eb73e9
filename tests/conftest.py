"""Fixtures for every test: the tiny checkpoints, and bundles made from them once per session."""

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from smolvlm_edge.bundle import Target
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES

os.environ["SMOL_EDGE_MEASURE"] = "0"  # only tests/test_trial.py has engines measured, and no answer depends on it
ROOT = Path(__file__).parents[1]
ENVIRONMENTS = "SMOL_EDGE_ENVIRONMENTS"
"""Names the folder in which environments of other programs are made, and found again by the next run."""
CHECKPOINTS = Path(__file__).parent / "checkpoints"
# extensions that ONNX Runtime chooses its kernels by; other kernels round differently
CPU_FEATURES = {"avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve"}

# who starts the tests with nohup or in the background of a script has these ignored, and programs inherit that
for _name, _default in {"SIGHUP": signal.SIG_DFL, "SIGINT": signal.default_int_handler}.items():
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _default)


def pytest_report_header() -> list[str]:
    """What numbers depend on: versions and processor."""
    packages = ("numpy", "pillow", "onnxruntime", "openvino", "tokenizers")
    return [
        f"python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
        f"{sys.platform} {platform.machine()}, CPU features: {_cpu_features()}",
    ]


@pytest.fixture(scope="session")
def tiny_checkpoints() -> dict[str, Path]:
    """The committed checkpoints (made by make_goldens.py) by name. Read-only: copy one to change it."""
    return {folder.name: folder for folder in sorted(CHECKPOINTS.iterdir())}


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_bundle(name, quant, *targets): a tiny checkpoint's bundle, exported when first asked for. Read-only."""

    @cache
    def export(name: str, quant: str, targets: tuple[Target, ...]) -> Path:
        out = tmp_path_factory.mktemp("bundles", numbered=True) / f"{name}-{quant}"
        # what calibration is worth is for test_calibration.py; the others need the exported graphs soon
        return export_checkpoint(tiny_checkpoints[name], out, RECIPES[quant], targets=targets, calibration=None)

    def bundle(name: str = "tiny-idefics3", quant: str = "fp32", *targets: Target) -> Path:
        return export(name, quant, targets or ("onnx",))  # so the cache has one key for each bundle

    return bundle


@pytest.fixture(scope="session")
def environment() -> Callable[..., Path]:
    """environment(name, *requirements): the Python of an environment of its own that has these (make integrations)."""
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


def _cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    features = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return " ".join(sorted(CPU_FEATURES.intersection(features))) or "none of those that matter"
