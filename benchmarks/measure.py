"""Time and memory of whole answers, as a Markdown table: this project's bundles beside transformers.

Every system answers the same prompt about the same picture in a process of its own; the systems take turns,
so that a machine that slows down slows all of them, and medians are shown.

    python benchmarks/measure.py --picture china.jpg --bundle int4=256m-int4 --bundle int8=256m-int8 \
        --transformers 256m --runs 5
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / "transformers_peer.py"
COLUMNS = {
    "load s": lambda run: run["load_ms"] / 1000,
    "encode one tile s": lambda run: run["vision_ms"] / run["tiles"] / 1000 if run["tiles"] else 0.0,
    "prefill tok/s": lambda run: run["prompt_tokens"] / run["prefill_ms"] * 1000 if run["prefill_ms"] else 0.0,
    "time to first token s": lambda run: run["ttft_ms"] / 1000,
    "decode tok/s": lambda run: run["decode_tokens_per_s"],
    "peak RSS MB": lambda run: run["peak_rss_bytes"] / 1e6,
}


def systems(options: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> command that prints one JSON object."""
    tokens, threads = str(options.tokens), str(options.threads)
    found = {}
    for bundle in options.bundle:
        name, folder = bundle.split("=", 1)
        arguments = ["run", options.picture, options.prompt, "--model", folder, "--max-tokens", tokens, "--json"]
        found[f"smol-edge {name}"] = [sys.executable, "-m", "smolvlm_edge.cli", *arguments, "--threads", threads]
    if options.transformers:
        for dtype in ("float32", "bfloat16"):
            arguments = [options.transformers, dtype, options.picture, options.prompt, tokens, threads]
            found[f"transformers {dtype}"] = [sys.executable, str(PEER), *arguments]
    return found


def measure(command: list[str]) -> dict[str, Any]:
    """One run in a process of its own."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return report


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cell(runs: list[dict[str, Any]], column: str) -> str:
    """Median, or a dash for what a system does not report."""
    median = statistics.median(COLUMNS[column](run) for run in runs)
    return (f"{median:.0f}" if median >= 100 else f"{median:.2f}") if median else "–"


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--prompt", default="Describe this image.")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--transformers", metavar="CHECKPOINT")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    commands = systems(options)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, command in commands.items():
            results[name].append(measure(command))
    last = next(iter(results.values()))[-1]
    print(
        f"{processor()}, {options.threads} threads, Python {platform.python_version()}, "
        f"onnxruntime {version('onnxruntime')}; {Path(options.picture).name}: {last['tiles']} tiles, "
        f"{last['prompt_tokens']} prompt tokens, {last['generated_tokens']} generated; "
        f"median of {options.runs} runs taken in turns.\n"
    )
    print(f"| | {' | '.join(COLUMNS)} |")
    print(f"|---|{'---:|' * len(COLUMNS)}")
    for name, runs in results.items():
        print(f"| {name} | {' | '.join(cell(runs, column) for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
