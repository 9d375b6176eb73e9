"""A checkpoint as llama.cpp's files, made by llama.cpp's own converter and quantiser.

Runs in the environment that `environments.py` builds: its `source` is the unpacked sdist of llama-cpp-python, which
holds the converter, and it has the torch and transformers that the converter needs.

    python benchmarks/peers/llama_cpp_files.py CHECKPOINT OUT Q4_0 Q4_K_M mmproj-Q8_0

writes OUT/Q4_0.gguf, OUT/Q4_K_M.gguf (the text model; F32 is kept beside them) and OUT/mmproj-Q8_0.gguf (vision
encoder and connector). Files that are there already are kept.
"""

import os
import subprocess
import sys
from pathlib import Path

import llama_cpp

CONVERTER = Path(sys.prefix) / "source" / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"


def convert(checkpoint: Path, out: Path, *options: str) -> None:
    """Run the converter, which otherwise asks the model hub about the checkpoint's origin."""
    part = out.with_name(f".{out.name}.part")
    command = [sys.executable, CONVERTER, checkpoint, "--outfile", part, *options]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    part.replace(out)


def quantise(source: Path, out: Path, width: str, threads: int) -> None:
    """Let llama.cpp quantise a file."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{width}")
    parameters.nthread = threads
    part = out.with_name(f".{out.name}.part")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), parameters):
        sys.exit(f"llama.cpp cannot quantise to {width}")
    part.replace(out)


def write_files(checkpoint: Path, out: Path, names: list[str], threads: int = 2) -> None:
    """Make every file that is missing."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (out / f"{name}.gguf").exists()]
    text = out / "F32.gguf"
    if any(not name.startswith("mmproj-") for name in missing) and not text.exists():
        convert(checkpoint, text, "--outtype", "f32")
    for name in missing:
        if name.startswith("mmproj-"):
            width = name.removeprefix("mmproj-").lower()
            convert(checkpoint, out / f"{name}.gguf", "--mmproj", "--outtype", width)
        elif name != "F32":
            quantise(text, out / f"{name}.gguf", name, threads)


if __name__ == "__main__":
    write_files(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
