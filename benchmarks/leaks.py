"""Does memory grow while a model is loaded and closed again and again, and while one answers many times?

    python benchmarks/leaks.py                     # 1,000 loads and 10,000 answers of a tiny model; minutes
    python benchmarks/leaks.py --bundle 256m-int4 --loads 100 --answers 500
    python benchmarks/leaks.py --engine openvino   # whose decoder is compiled once a process (openvino_leak.py)

Answers are short and of every kind: about pictures and about none, streams that are closed, cancelled ones, pictures
that cannot be read. Exits with 1 if the last tenth of a series lies above the second one by more than the bound, or has
more threads.

Every load that answers leaves about 2.8 KB of malloc's memory in use, 1-2 MB in a thousand, while Python's blocks and
objects stay as many: it is the tokenizers library (0.23.3), of which `Tokenizer.from_file(...).encode(...)` alone,
again and again, leaves as much; graphs that are opened, run and closed leave less than a tenth of that. On OpenVINO a
load that answers leaves some 10 KB (700 loads: 7 MB), as many threads as before, and answers leave nothing; of that the
tokenizer has 1.3 KB, a graph that is opened and closed 0.3, and whose the rest is was not found.
"""

import argparse
import gc
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from smolvlm_edge import ImageError, SmolVLM, StoppedError
from smolvlm_edge.graphs.engines import TARGETS

TINY = Path(__file__).parents[1] / "tests" / "checkpoints" / "tiny-idefics3"
SAMPLES = 100
BOUND_MB = 2.0
LEFT_KB = {"onnxruntime": 2.8, "openvino": 11.0}
"""By a load that answers, as told above."""
QUESTION = "What is this?"
NOISE = np.random.default_rng(0)
PICTURES = [Image.fromarray(NOISE.integers(0, 256, (60, 90, 3), np.uint8)) for _ in range(7)]


def resident_mb() -> float:
    """What this process has in memory now, as Linux says."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def threads() -> int:
    """Of this process, as Linux says."""
    return len([*Path("/proc/self/task").iterdir()])


def load(bundle: Path, engine: str) -> None:
    """Open a model, answer once so that every graph is opened, and close it."""
    with SmolVLM.load(bundle, engine=engine, threads=1) as model:
        model.generate(PICTURES[0], QUESTION, max_tokens=1)


def answer(model: SmolVLM, number: int) -> None:
    """One answer, of a kind that its number chooses."""
    picture, kind = PICTURES[number % 7], number % 5
    if kind == 0:
        model.generate(picture, QUESTION, max_tokens=4)
    elif kind == 1:
        model.generate([], QUESTION * (1 + number % 3), max_tokens=4)
    elif kind == 2:
        stream = model.stream(picture, QUESTION, detail="low")
        next(stream)
        stream.close()
    elif kind == 3:
        cancel = threading.Event()
        with suppress(StoppedError):
            model.generate(picture, QUESTION, cancel=cancel, on_tile=lambda *_: cancel.set())
    else:
        with suppress(ImageError):
            model.generate([picture, b"no picture"], QUESTION)


def watch(what: str, count: int, step: Callable[[int], None], left_kb: float = 0.0) -> bool:
    """Take that many steps and print what was in memory; whether it stayed flat."""
    samples, tasks = [], []
    for number in range(count):
        step(number)
        if (number + 1) % max(1, count // SAMPLES) == 0:
            samples.append(resident_mb())
            tasks.append(threads())
    tenth = max(1, len(samples) // 10)
    shown = [0, *range(tenth - 1, len(samples), tenth)]
    print(f"{count:,} {what}: resident MB {' '.join(f'{samples[at]:.1f}' for at in shown)}")
    grown = median(samples[-tenth:]) - median(samples[tenth : 2 * tenth])
    print(f"  grown by {grown:+.2f} MB from the second tenth to the last")
    print(f"  threads: {tasks[tenth]} in the second tenth, {tasks[-1]} in the last")
    return grown <= max(BOUND_MB, left_kb * count / 1024) and tasks[-1] <= tasks[tenth]


def main() -> None:
    """Measure both series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="by default the tiny checkpoint of the tests, exported to int4")
    parser.add_argument("--loads", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--engine", choices=("onnxruntime", "openvino"), default="onnxruntime")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        bundle = options.bundle or exported(Path(folder) / "tiny", options.engine)
        flat = [watch("loads", options.loads, lambda _: load(bundle, options.engine), LEFT_KB[options.engine])]
        with SmolVLM.load(bundle, engine=options.engine, threads=1) as model:
            flat.append(watch("answers", options.answers, lambda number: answer(model, number)))
    sys.exit(0 if all(flat) else 1)


def exported(folder: Path, engine: str) -> Path:
    """The tiny checkpoint as a bundle."""
    from smolvlm_edge.export import export_checkpoint  # noqa: PLC0415 - needs the [export] extra
    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415

    return export_checkpoint(TINY, folder, RECIPES["int4"], targets=[TARGETS[engine]])


if __name__ == "__main__":
    main()
