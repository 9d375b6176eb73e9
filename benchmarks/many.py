r"""What answering many at once is worth, with one bundle: seconds, tokens/s and peak RSS beside one at a time.

    python benchmarks/many.py step --bundle 256m-int4                        # decoding 1, 4, 16 at once, depth 200
    python benchmarks/many.py describe --bundle 256m-int4 --picture china.jpg --detail low      # 64 pictures
    python benchmarks/many.py at-once --bundle 256m-int4 --picture china.jpg # 64 questions about 64 pictures at once
    python benchmarks/many.py photo --bundle 256m-int4 --picture china.jpg   # 100 questions about one, 8 at a time

Prints a JSON line for every run, `--runs` of each kind, in turns, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from smolvlm_edge import Answer, SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.generation.timings import peak_rss_bytes
from smolvlm_edge.generation.width import bytes_per_position
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.engines import open_engine

DEPTH, STEPS, ROWS = 200, 20, (1, 2, 4, 8, 16)


def shifted(path: Path, count: int) -> list[Image.Image]:
    """Pictures of one size, none like another."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    return [ImageChops.offset(picture, 7 * number, 0) for number in range(count)]


def step(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a run of the decoder that appends a token to so many sequences of depth 200."""
    bundle, threads = Bundle.open(options.bundle), options.threads
    engine = open_engine("onnxruntime", threads)
    decoder = engine.decoder(bundle.graph_path("decoder", "onnx"), max(ROWS))
    embeds = np.random.default_rng(0).standard_normal((DEPTH, bundle.model.text.hidden_size), np.float32)
    for slot in range(max(ROWS)):
        for start in range(0, DEPTH, decoder.chunk):
            decoder(embeds[start : start + decoder.chunk], slot=slot)
    found = {}
    for rows in ROWS:
        took = []
        for _ in range(STEPS):
            start_s = time.perf_counter()
            decoder.step(embeds[:rows], range(rows))
            took.append(time.perf_counter() - start_s)
            for slot in range(rows):
                decoder.truncate(DEPTH, slot)
        found[rows] = median(took[2:])
    rates = {rows: round(rows / took_s, 1) for rows, took_s in found.items()}
    gain = {rows: round(rate / rates[1], 2) for rows, rate in rates.items()}
    return {"ms": {rows: round(1000 * took_s, 2) for rows, took_s in found.items()}, "tokens/s": rates, "gain": gain}


def answer_all(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """So many pictures, each with the same question."""
    with SmolVLM.load(options.bundle, threads=options.threads, parallel=options.parallel) as model:
        ends = list(model.bundle.model.eos_token_ids)  # answers of one length, so that runs can be compared
        requests = ({"images": each, "prompt": "Describe this image."} for each in shifted(options.picture, count))
        wish = {"max_tokens": options.tokens, "detail": options.detail, "suppress_tokens": ends}
        return summed(model, requests, wish)


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """64 pictures, one after the other or several at once."""
    return answer_all(options, options.count)


def at_once(options: argparse.Namespace) -> dict[str, Any]:
    """All questions at the same time; what their keys and values take besides is computed from the shape."""
    options.parallel = options.count
    text = Bundle.open(options.bundle).model.text
    return answer_all(options, options.count) | {"bytes_per_position": bytes_per_position(text)}


def photo(options: argparse.Namespace) -> dict[str, Any]:
    """Many questions about one picture."""
    with SmolVLM.load(options.bundle, threads=options.threads, parallel=options.parallel) as model:
        ends = list(model.bundle.model.eos_token_ids)
        (picture,) = shifted(options.picture, 1)
        requests = ({"images": picture, "prompt": f"Question {number}: what is it?"} for number in range(options.count))
        wish = {"max_tokens": options.tokens, "detail": options.detail, "suppress_tokens": ends}
        return summed(model, requests, wish)


def summed(model: SmolVLM, requests: Any, wish: Any) -> dict[str, Any]:
    """What all the answers took."""
    start, start_cpu = time.perf_counter(), time.process_time()
    answers = list(model.generate_many(requests, **wish))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    if failed := [each for each in answers if not isinstance(each, Answer)]:
        raise failed[0]
    timings = [each.timings for each in answers]
    generated = sum(each.generated_tokens for each in timings)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),  # of all threads; other programs disturb them less than the seconds
        "tokens/s": round(generated / seconds, 1),
        "peak_rss_mb": round((peak_rss_bytes() or 0) / 1e6),
        "encoded_tiles": sum(each.encoded_tiles for each in timings),
        "tiles": timings[0].tiles,
        "prompt_tokens": timings[0].prompt_tokens,
        "computed_prompt_tokens": sum(each.prompt_tokens - each.cached_tokens for each in timings),
        "batch_size": round(sum(each.batch_size for each in timings) / len(timings), 2),
    }


KINDS = {"step": step, "describe": describe, "at-once": at_once, "photo": photo}
COUNTS = {"step": 1, "describe": 64, "at-once": 64, "photo": 100}
WIDTHS = {"step": (1,), "describe": (1, 8, 16), "at-once": (64,), "photo": (1, 8)}


def main() -> None:
    """Every run in a process of its own, unless this is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--detail", default="high")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--count", type=int, help="pictures or questions")
    parser.add_argument("--widths", type=int, nargs="+", help="answered at once, to compare")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--parallel", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.count = options.count or COUNTS[options.kind]
    if options.parallel is not None:
        print(json.dumps(KINDS[options.kind](options)))
        return
    for _ in range(options.runs):
        for width in options.widths or WIDTHS[options.kind]:
            command = [sys.executable, *sys.argv, "--parallel", str(width)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(json.dumps({"kind": options.kind, "parallel": width, **json.loads(said)}), flush=True)


if __name__ == "__main__":
    main()
