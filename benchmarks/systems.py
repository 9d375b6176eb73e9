"""The systems that are compared: how each is asked, and what it needs before."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from environments import ensure, python_of

from smolvlm_edge.bundle import Bundle, Target, Targets

PEERS = Path(__file__).parent / "peers"
WIDTHS = {
    "int4": ("--quant", "int4"),
    "int4 static": ("--quant", "int4", "--vision", "int8-static"),
    "int8": ("--quant", "int8"),
    "fp32": ("--quant", "fp32"),
}
"""This project's bundles, and how they are exported."""
GGUF = ("Q4_0", "Q8_0")
MMPROJ = "mmproj-Q8_0"
OPENVINO_OPTIONS = ("--task", "image-text-to-text", "--weight-format", "int4", "--group-size", "64")
ENGINES: dict[Target, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
NAMES: dict[str, Targets] = {
    "ONNX Runtime": {"vision": "onnx", "decoder": "onnx"},
    "OpenVINO": {"vision": "openvino", "decoder": "openvino"},
    "vision on OpenVINO": {"vision": "openvino", "decoder": "onnx"},
}
"""The ways to run a bundle, as far as it holds graphs for them."""


@dataclass(frozen=True)
class System:
    """A command that answers a request, and the files that it reads."""

    command: tuple[str | Path, ...]
    """Takes the request as a further argument."""
    model: dict[str, Any]
    """The `model` of every request."""
    files: tuple[Path, ...]
    """What an answer needs on disk besides the program: files, or folders."""

    @property
    def bytes_on_disk(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for path in self.files for file in _files(path))


@dataclass(frozen=True)
class Work:
    """Where things are."""

    checkpoint: Path
    folder: Path
    """The user's: environments, and one folder of converted files for each checkpoint."""
    bundles: dict[str, Path]
    """This project's, by name; without any, the checkpoint is exported to all of WIDTHS."""

    @property
    def models(self) -> Path:
        """Converted files of this checkpoint, in the state in which it is now."""
        return self.folder / "models" / f"{self.checkpoint.name}-{_state(self.checkpoint)}"

    @property
    def home(self) -> Path:
        """Where this project keeps models by name, and what an engine compiled for them."""
        return self.models / "smol-edge"

    def environment(self, name: str) -> Path:
        """An environment, built if need be."""
        return ensure(self.folder / "environments", name)


def systems(work: Work) -> Iterator[tuple[str, Callable[[], System]]]:
    """Names, and how to get each of them ready; that may take long, and fail."""
    for name, folder in _bundles(work).items():
        for how, targets in NAMES.items():
            if {*targets.values()} <= {*_targets(folder)}:
                yield f"smol-edge {name}, {how}", lambda f=folder, t=targets: _smol_edge(work, f, t)
    for width in GGUF:
        yield f"llama.cpp {width}", lambda w=width: _llama_cpp(work, w)
    yield "optimum-intel int4", lambda: _optimum_intel(work)
    for dtype in ("bfloat16", "float32"):
        yield f"transformers {dtype}", lambda d=dtype: _transformers(work, d)
    yield "transformers.js int4", lambda: _transformers_js(work)


def _bundles(work: Work) -> dict[str, Path]:
    return work.bundles or {name: work.home / "bundles" / name for name in WIDTHS}


def _targets(bundle: Path) -> Sequence[Target]:
    """The engines' graphs that a bundle holds, or will hold once it is exported."""
    if bundle.exists():
        return Bundle.open(bundle).targets
    return tuple(target for target, engine in ENGINES.items() if find_spec(engine))


def _exported(work: Work, bundle: Path) -> Path:
    """The bundle, made if need be; one that the user named is there already."""
    if not bundle.exists():
        bundle.parent.mkdir(parents=True, exist_ok=True)
        target = "both" if len(_targets(bundle)) > 1 else "onnx"
        command = ["export", work.checkpoint, *WIDTHS[bundle.name], "--target", target, "--out", bundle]
        _run(sys.executable, "-m", "smolvlm_edge.cli", *command)
    return bundle


def _smol_edge(work: Work, bundle: Path, targets: Targets) -> System:
    _exported(work, bundle)
    files = tuple(bundle / name for name in Bundle.open(bundle).files_for(targets))
    engine = ",".join(f"{half}={ENGINES[target]}" for half, target in targets.items())
    model = {"folder": str(bundle), "engine": engine, "home": str(work.home)}
    return System((sys.executable, PEERS / "ask_smol_edge.py"), model, files)


def _llama_cpp(work: Work, width: str) -> System:
    python, out = python_of(work.environment("llama.cpp")), work.models / "llama.cpp"
    _run(python, PEERS / "llama_cpp_files.py", work.checkpoint, out, width, MMPROJ)
    files = out / f"{width}.gguf", out / f"{MMPROJ}.gguf"
    model = {"text": str(files[0]), "mmproj": str(files[1])}
    return System((python, PEERS / "ask_llama_cpp.py"), model, files)


def _optimum_intel(work: Work) -> System:
    python, out = python_of(work.environment("optimum-intel")), work.models / "optimum-intel-int4"
    if not out.exists():
        part = out.with_name(f".{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        export = ["export", "openvino", "--model", work.checkpoint, *OPENVINO_OPTIONS, part]
        _run(python, "-m", "optimum.commands.optimum_cli", *export)
        part.rename(out)
    return System((python, PEERS / "ask_transformers.py"), {"folder": str(out)}, (out,))


def _transformers(work: Work, dtype: str) -> System:
    python = python_of(work.environment("transformers"))
    model = {"folder": str(work.checkpoint), "dtype": dtype}
    return System((python, PEERS / "ask_transformers.py"), model, (work.checkpoint,))


def _transformers_js(work: Work) -> System:
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("node is not installed")
    package, out = work.environment("transformers.js"), work.models / "transformers.js-int4"
    if not out.exists():
        command = ["export", work.checkpoint, *WIDTHS["int4"], "--layout", "transformers.js", "--out", out]
        _run(sys.executable, "-m", "smolvlm_edge.cli", *command)
    model = {"package": str(package), "folder": str(out)}
    return System((node, PEERS / "ask_transformers_js.mjs"), model, (out,))


def _run(*command: str | Path) -> None:
    """What it prints is not for stdout."""
    subprocess.run(command, check=True, stdout=sys.stderr)


def _state(folder: Path) -> str:
    """Eight digits that change with the files of a folder."""
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(folder)]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:8]


def _files(path: Path) -> list[Path]:
    """A file, or all files of a folder, in a fixed order."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
