"""The logits of llama.cpp's files of a checkpoint over given token ids, for comparing distributions.

    python benchmarks/peers/llama_cpp_logits.py CHECKPOINT WINDOWS.json OUT Q4_0 Q4_K_M ...

WINDOWS.json is a list of lists of token ids, each read with an empty cache. Writes OUT/NAME.gguf, unless it is there
already, and OUT/NAME.npy: the logits float32 [positions, vocab_size] of all windows in a row. Runs in the environment
of `llama_cpp_files.py`.
"""

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp_files import write_files

THREADS = 2


@llama_cpp.llama_log_callback
def silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """What llama.cpp has to say goes nowhere."""


def write_logits(model: Path, windows: list[list[int]], out: Path) -> None:
    """Logits of every position; one window at a time, since all of them together may not fit into memory."""
    llama = llama_cpp.Llama(
        str(model), n_ctx=max(map(len, windows)), n_batch=512, n_threads=THREADS, logits_all=True, verbose=False
    )
    shape = (sum(map(len, windows)), llama.n_vocab())
    rows, start = np.lib.format.open_memmap(out, "w+", np.float32, shape), 0
    for window in windows:
        llama.reset()
        llama.eval(window)
        rows[start : start + len(window)] = llama.scores[: len(window)]
        start += len(window)
    rows.flush()


def main() -> None:
    """Write the files of every width."""
    checkpoint, windows_file, out, *widths = sys.argv[1:]
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    windows, folder = json.loads(Path(windows_file).read_text()), Path(out)
    write_files(Path(checkpoint), folder, widths)
    for width in widths:
        file = folder / f"{width}.gguf"
        write_logits(file, windows, folder / f"{width}.npy")
        print(f"{width}: {file.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
