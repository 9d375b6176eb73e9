"""Environments of their own for the peers, built from PyPI and npm into a folder that the user names.

    python benchmarks/environments.py FOLDER                   # all of them
    python benchmarks/environments.py FOLDER llama.cpp         # one

pip's own settings count. On Linux, PyPI's torch brings CUDA's libraries (3 GB); PIP_EXTRA_INDEX_URL names PyTorch's
index for processors, PIP_CONSTRAINT a file with the build to take. llama.cpp is compiled, which needs a C++ compiler
and takes 15 minutes on two cores; transformers.js needs Node.
"""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

LLAMA_CPP_PYTHON = "0.3.36"
TRANSFORMERS_JS = "4.3.1"
OLD_TRANSFORMERS = "transformers==4.57.6"
"""The last that optimum-intel 2.2 takes, and the one that llama.cpp's converter asks for."""
READY = "ready"
"""A file in an environment that was built to the end."""
GGML_OPTIONS = {
    "GGML_AVX": "avx",
    "GGML_AVX2": "avx2",
    "GGML_FMA": "fma",
    "GGML_F16C": "f16c",
    "GGML_BMI2": "bmi2",
    "GGML_AVX_VNNI": "avx_vnni",
    "GGML_AVX512": "avx512f",
    "GGML_AVX512_VBMI": "avx512_vbmi",
    "GGML_AVX512_VNNI": "avx512_vnni",
    "GGML_AVX512_BF16": "avx512_bf16",
}
"""llama.cpp's build options by the flag of Linux's /proc/cpuinfo that allows them.

Not GGML_NATIVE: it takes AMX where the processor announces it, and virtual machines announce it and then refuse it.
"""


SERVER_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)
"""Of llama.cpp's server: one program, which fetches nothing."""


def ensure(folder: Path, name: str) -> Path:
    """The environment of that name, built if it is not there yet.

    Raises:
        subprocess.CalledProcessError: pip, npm or the compiler failed; what they said is on stderr.
        FileNotFoundError: npm is not installed.
    """
    environment = folder / name
    if not (environment / READY).exists():
        print(f"building {environment}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        environment.mkdir(parents=True)
        BUILDERS[name](environment)
        (environment / READY).touch()
    return environment


def python_of(environment: Path) -> Path:
    """The interpreter of an environment, unresolved: resolved, it would be another one's."""
    return environment.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _packages(*requirements: str) -> Callable[[Path], None]:
    def build(environment: Path) -> None:
        _venv(environment)
        _pip(environment, "install", *requirements)

    return build


def _optimum_intel(environment: Path) -> None:
    _packages("optimum-intel[openvino]==2.2.*", OLD_TRANSFORMERS, "torch", "pillow")(environment)
    # pictures are resized by Pillow; a torchvision for CUDA beside a torch without it breaks transformers
    _pip(environment, "uninstall", "--yes", "torchvision")


def _llama_cpp(environment: Path) -> None:
    _venv(environment)
    # the compiler first: it fails on more machines than the rest
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--dest", str(environment)]
    _pip(environment, "install", "scikit-build-core", "cmake", "ninja")
    _pip(environment, "download", *options, f"llama-cpp-python=={LLAMA_CPP_PYTHON}")
    (archive,) = environment.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(environment, filter="data")
    archive.unlink()
    source = environment / "source"
    next(environment.glob("llama_cpp_python-*")).rename(source)
    variables = os.environ | {"CMAKE_ARGS": " ".join(cmake_options())}
    _pip(environment, "install", "--no-build-isolation", str(source), env=variables)
    _pip(environment, "install", OLD_TRANSFORMERS, "torch", "safetensors", "sentencepiece")  # for its converter


def llama_server(environment: Path) -> Path:
    """llama.cpp's server, compiled from the source in its environment if it is not there yet; another 15 minutes."""
    build, scripts = environment / "server", python_of(environment).parent
    program = build / "bin" / ("llama-server.exe" if os.name == "nt" else "llama-server")
    if not program.exists():
        variables = os.environ | {"PATH": os.pathsep.join([str(scripts), os.environ["PATH"]])}
        source = environment / "source" / "vendor" / "llama.cpp"
        configure = [scripts / "cmake", "-G", "Ninja", "-S", source, "-B", build, *SERVER_OPTIONS, *cmake_options()]
        subprocess.run(configure, check=True, env=variables, **_QUIET)
        compile_ = [scripts / "cmake", "--build", build, "--target", "llama-server"]
        subprocess.run(compile_, check=True, env=variables, **_QUIET)
    return program


def _transformers_js(environment: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    # without scripts: onnxruntime-node's would fetch CUDA's libraries from elsewhere; all else is in the packages
    options = ["--prefix", environment, "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([npm, "install", *options, f"@huggingface/transformers@{TRANSFORMERS_JS}"], check=True, **_QUIET)


def cmake_options() -> list[str]:
    """What llama.cpp is compiled for: what this processor says it has, without AMX; its own choice elsewhere."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    flags = _processor_flags()
    chosen = [f"-D{option}={'ON' if flag in flags else 'OFF'}" for option, flag in GGML_OPTIONS.items()]
    amx = [f"-DGGML_AMX_{kind}=OFF" for kind in ("TILE", "INT8", "BF16")]
    return ["-DGGML_NATIVE=OFF", *chosen, *amx]


def _processor_flags() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split() for line in lines if line.startswith("flags"))


def _venv(environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)


_QUIET = {"stdout": sys.stderr}
"""stdout is for results."""


def _pip(environment: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
    subprocess.run([python_of(environment), "-m", "pip", "--quiet", *arguments], check=True, env=env, **_QUIET)


BUILDERS = {
    "llama.cpp": _llama_cpp,
    "transformers": _packages("transformers==5.23.0", "torch", "pillow"),
    "optimum-intel": _optimum_intel,
    "transformers.js": _transformers_js,
}


if __name__ == "__main__":
    for wanted in sys.argv[2:] or BUILDERS:
        ensure(Path(sys.argv[1]), wanted)
