"""Quality against size: a checkpoint's recipes, and llama.cpp's files of it, as JSON, a Markdown table and a plot.

All of them read the same English prose, which took no part in calibration, and are compared with the same float32
logits by the same code. Bytes are those of token table, decoder and head, as llama.cpp's file of a text model has them.

    python benchmarks/frontier.py 256m --out frontier --target-mb 108 --target-mb 125 --llama-cpp llama.cpp/bin/python

--llama-cpp names the Python of the environment of peers/llama_cpp_files.py. A --target-mb is what token table, decoder
and head may take. Prefill is 512 tokens at once, decoding 32 tokens behind them, medians of rounds taken in turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from smolvlm_edge.bundle import Bundle, Targets
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.quality import Quality, Text, compare_text, plot
from smolvlm_edge.quality.distributions import BundleReader, compare_readers, parts_of
from smolvlm_edge.quality.report import Sizes
from smolvlm_edge.quantize import RECIPES

PEER = Path(__file__).parent / "peers" / "llama_cpp_logits.py"
ONNX: Targets = {"vision": "onnx", "decoder": "onnx"}
WIDTHS = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
PROMPT, ANSWER, ROUNDS = 512, 32, 7


class StoredLogits:
    """Logits [positions, vocab_size] of all windows, read from a file in their order."""

    def __init__(self, file: Path) -> None:
        self._rows, self._next = np.load(file, mmap_mode="r"), 0

    def logits(self, window: np.ndarray) -> Iterator[np.ndarray]:
        """Those of the next window."""
        rows = self._rows[self._next : self._next + len(window)]
        self._next += len(window)
        return (rows[part] for part in parts_of(window))


def bundles(options: argparse.Namespace, work: Path, vision_bytes: int) -> Iterator[tuple[str, Path]]:
    """Export every recipe that is to be compared."""
    kinds = {
        "int8": {"recipe": RECIPES["int8"]},
        "int4, to the nearest": {"recipe": RECIPES["int4"], "calibration": None},
        "int4": {"recipe": RECIPES["int4"]},
    }
    for size in options.target_mb:
        kinds[f"int4, {size:g} MB"] = {"recipe": RECIPES["int4"], "target_bytes": vision_bytes + round(size * 1e6)}
    for name, how in kinds.items():
        start = time.perf_counter()
        yield name, export_checkpoint(options.checkpoint, work / name, **how)
        print(f"{name}: exported in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def speeds(bundles: Mapping[str, Bundle], engine: OnnxRuntimeEngine) -> dict[str, tuple[float, float]]:
    """Tokens a second of every bundle's decoder, prefilling and decoding."""
    decoders = {name: engine.decoder(bundle.graph_path("decoder", "onnx")) for name, bundle in bundles.items()}
    hidden = next(iter(bundles.values())).model.text.hidden_size
    prompt = np.random.default_rng(0).standard_normal((PROMPT, hidden), np.float32)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in decoders}
    for _ in range(ROUNDS):
        for name, decoder in decoders.items():
            decoder.truncate(0)
            start = time.perf_counter()
            decoder(prompt, 1)
            between = time.perf_counter()
            for _ in range(ANSWER):
                decoder(prompt[:1], 1)
            seen[name].append((PROMPT / (between - start), ANSWER / (time.perf_counter() - between)))
    for decoder in decoders.values():
        decoder.close()
    return {name: (median(each[0] for each in runs), median(each[1] for each in runs)) for name, runs in seen.items()}


def main() -> None:
    """Export, read, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for frontier.json, .md and .svg")
    parser.add_argument("--target-mb", type=float, action="append", default=[])
    parser.add_argument("--llama-cpp", help="Python of an environment with llama.cpp")
    parser.add_argument("--gguf", type=Path, help="folder where llama.cpp's files are kept")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    engine = OnnxRuntimeEngine(available_cores())
    found = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        reference = Bundle.open(export_checkpoint(options.checkpoint, work / "fp32", RECIPES["fp32"]))
        text = Text.default(reference)
        nearest = Bundle.open(export_checkpoint(options.checkpoint, work / "sizes", calibration=None))
        sizes = Sizes.of(nearest, ONNX)
        made = {name: Bundle.open(path) for name, path in bundles(options, work, sizes.all_files - sizes.text)}
        for name, bundle in made.items():
            fidelity = compare_text(text, bundle, reference, engine)
            found.append(Quality(name, bundle.recipe["name"], Sizes.of(bundle, ONNX), fidelity, (), ()))
        tokens_per_s = speeds(made, engine)
        if options.llama_cpp:
            windows, files = work / "windows.json", options.gguf or work
            windows.write_text(json.dumps([window.tolist() for window in text.windows]))
            subprocess.run([options.llama_cpp, PEER, options.checkpoint, windows, files, *WIDTHS], check=True)
            for width in WIDTHS:
                graphs = {"embed_tokens": 0, "decoder": (files / f"{width}.gguf").stat().st_size}
                reader = BundleReader(reference, engine)
                fidelity = compare_readers(text, StoredLogits(files / f"{width}.npy"), reader)
                reader.close()
                found.append(Quality(f"llama.cpp {width}", width, Sizes(graphs, graphs["decoder"]), fidelity, (), ()))
    table = [
        "| | MB | KL to fp32 | top token kept | perplexity | prefill tok/s | decode tok/s |",
        "|---|" + "---:|" * 6,
    ]
    for each in found:
        prefill, decode = (f"{speed:.0f}" for speed in tokens_per_s[each.name]) if each.name in tokens_per_s else "––"
        table.append(
            f"| {each.name} | {each.sizes.text / 1e6:.1f} | {each.text.kl:.4f} | {100 * each.text.top1:.1f} % "
            f"| × {each.text.perplexity_ratio:.3f} | {prefill} | {decode} |"
        )
    rows = [
        {"name": each.name, "bytes": each.sizes.text, **each.text.to_dict()}
        | dict(zip(("prefill_tokens_per_s", "decode_tokens_per_s"), tokens_per_s.get(each.name, ()), strict=False))
        for each in found
    ]
    (options.out / "frontier.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.out / "frontier.md").write_text("\n".join(table) + "\n")
    (options.out / "frontier.svg").write_text(plot(found))
    print("\n".join(table))


if __name__ == "__main__":
    main()
