"""What another program costs: one tile, prefill and decode, alone and beside processes that keep a processor busy.

Every setting has a process of its own with its graphs open; they take turns, each alone and loaded, so that a machine
that slows down slows all of them. Medians, and what is left of the speed under load: with as many other processes as
threads, each of them gets half the processors, so half is in proportion.

    python benchmarks/busy.py 256m-int4 --busy 1 --setting 'as built in=' \
        --setting 'spinning for 1 s=session.intra_op.spin_duration_us=1000000' \
        --setting 'not at all=session.intra_op.allow_spinning=0' --setting 'one thread=threads=1'

A setting is a name and, separated by commas, session options of ONNX Runtime that replace the engine's, or `threads`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.generation.decoding import prefill
from smolvlm_edge.graphs import available_cores

BUSY = "while True: pass"


def open_graphs(folder: Path, values: dict[str, str]) -> tuple[Any, ...]:
    """Vision encoder, token table and decoder, opened with these session options over the engine's own."""
    import onnxruntime as ort  # noqa: PLC0415 - the parent needs none

    from smolvlm_edge.graphs import onnxruntime as engines  # noqa: PLC0415

    plain = ort.InferenceSession

    def session(path: Path, options: ort.SessionOptions, **keywords: Any) -> ort.InferenceSession:
        for key, value in values.items():
            options.add_session_config_entry(key, value)
        return plain(path, options, **keywords)

    threads = int(values.pop("threads", available_cores()))
    ort.InferenceSession = session
    bundle, engine = Bundle.open(folder), engines.OnnxRuntimeEngine(threads)
    paths = {name: bundle.graph_path(name, "onnx") for name in ("vision_encoder", "embed_tokens", "decoder")}
    return (
        bundle,
        engine.graph(paths["vision_encoder"]),
        engine.graph(paths["embed_tokens"]),
        engine.decoder(paths["decoder"]),
    )


def work(folder: Path, values: dict[str, str], depth: int, tokens: int) -> None:
    """Measure once for every line on stdin."""
    bundle, vision_encoder, embed_tokens, decoder = open_graphs(folder, values)
    model, random = bundle.model, np.random.default_rng(0)
    tile = random.standard_normal((1, 3, model.vision.image_size, model.vision.image_size), np.float32)
    prompt = embed_tokens(random.integers(0, 40_000, (1, depth)))[0]
    for _ in sys.stdin:
        times = [time.perf_counter()]
        vision_encoder(tile)
        times.append(time.perf_counter())
        decoder.truncate(0)
        token = int(prefill(decoder, prompt).argmax())
        times.append(time.perf_counter())
        for _ in range(tokens):
            token = int(decoder(embed_tokens(np.array([[token]]))[0])[-1].argmax())
        times.append(time.perf_counter())
        tile_s, prefill_s, decode_s = np.diff(times).tolist()
        figures = {"tiles/s": 1 / tile_s, "prefill tok/s": depth / prefill_s, "decode tok/s": tokens / decode_s}
        print(json.dumps(figures), flush=True)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """That many other processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        if others:
            time.sleep(0.5)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(worker: "subprocess.Popen[str]") -> dict[str, float]:
    """One run of a worker."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(file=worker.stdin, flush=True)
    figures: dict[str, float] = json.loads(worker.stdout.readline())
    return figures


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--setting", action="append", metavar="NAME=KEY=VALUE,...", help="default: what is built in")
    parser.add_argument("--busy", type=int, default=1, help="other processes")
    parser.add_argument("--depth", type=int, default=896, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of the answer")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        values = dict(pair.split("=", 1) for pair in options.work.split(",") if pair)
        work(options.bundle, values, options.depth, options.tokens)
        return

    settings = dict(each.split("=", 1) for each in options.setting or ["built in="])
    figures: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        workers = {}
        for name, values in settings.items():
            command = [sys.executable, __file__, *map(str, (options.bundle, "--depth", options.depth))]
            command += ["--tokens", str(options.tokens), "--work", values]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            workers[name] = stack.enter_context(worker)
            measure(worker)  # warm
        for _ in range(options.runs):
            for name, worker in workers.items():
                for count, condition in ((0, "alone"), (options.busy, "loaded")):
                    with busy(count):
                        for figure, value in measure(worker).items():
                            figures[name][f"{figure}, {condition}"].append(value)
    medians = {
        name: {figure: statistics.median(values) for figure, values in found.items()} for name, found in figures.items()
    }
    print(json.dumps(medians) if options.json else table(medians, options.busy))


def table(medians: dict[str, dict[str, float]], others: int) -> str:
    """Markdown: a row per setting, and what is left under load in per cent."""
    figures = ("tiles/s", "prefill tok/s", "decode tok/s")
    header = [f"{os.cpu_count()} processors, {others} busy", *(f"{each} (left)" for each in figures)]
    rows = [header, ["---", *("---:" for _ in figures)]]
    for name, found in medians.items():
        pairs = [(found[f"{each}, alone"], found[f"{each}, loaded"]) for each in figures]
        rows.append([name, *(f"{alone:.3g} → {loaded:.3g} ({100 * loaded / alone:.0f} %)" for alone, loaded in pairs)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
