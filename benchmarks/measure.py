"""Time and memory of whole answers, as a Markdown table: this project's bundles beside transformers.

Every system answers the same prompt about the same picture in a process of its own; the systems take turns,
so that a machine that slows down slows all of them, and medians are shown.

    python benchmarks/measure.py --picture china.jpg --bundle int4=256m-int4 --bundle int8=256m-int8 \
        --transformers 256m --runs 5
"""

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from smolvlm_edge.machine import processor_name
from smolvlm_edge.measuring import COLUMNS, Command, answer_command, cell, medians, take_turns

PEER = Path(__file__).parent / "transformers_peer.py"


def systems(options: argparse.Namespace) -> dict[str, Command]:
    """Name -> command that prints one JSON object."""
    asked = {"tokens": options.tokens, "threads": options.threads}
    found: dict[str, Command] = {}
    for bundle in options.bundle:
        name, folder = bundle.split("=", 1)
        command = answer_command(folder, options.picture, options.prompt, engine=options.engine, **asked)
        found[f"smol-edge {name}"] = command
    if options.transformers:
        for dtype in ("float32", "bfloat16"):
            arguments = [options.transformers, dtype, options.picture, options.prompt, *map(str, asked.values())]
            found[f"transformers {dtype}"] = [sys.executable, str(PEER), *arguments]
    return found


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--prompt", default="Describe this image.")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--transformers", metavar="CHECKPOINT")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    commands = systems(options)
    results = take_turns(commands, options.runs)
    last = next(iter(results.values()))[-1]
    print(
        f"{processor_name()}, {options.threads} threads, Python {platform.python_version()}, "
        f"onnxruntime {version('onnxruntime')}; {Path(options.picture).name}: {last['tiles']} tiles, "
        f"{last['prompt_tokens']} prompt tokens, {last['generated_tokens']} generated; "
        f"median of {options.runs} runs taken in turns.\n"
    )
    print(f"| | {' | '.join(COLUMNS)} |")
    print(f"|---|{'---:|' * len(COLUMNS)}")
    for name, runs in results.items():
        print(f"| {name} | {' | '.join(map(cell, medians(runs).values()))} |")


if __name__ == "__main__":
    main()
