r"""This project beside its peers, from one command: as JSON and as a Markdown table.

    python benchmarks/compare.py CHECKPOINT --work FOLDER --picture china.jpg --out comparison

builds what is missing in FOLDER (see environments.py; the downloads come from PyPI and npm), converts the checkpoint
for every system, asks them all the same, in turns, each time in a process of its own, and writes comparison.json and
comparison.md. A run is one question about the picture and, for decoding speed, one text of each --depth.

    python benchmarks/compare.py 256m --work peers --picture china.jpg --out busy --busy 1     # beside a busy process
    python benchmarks/compare.py 256m --work peers --picture china.jpg --out two --system "smol-edge int4*" \
        --system "llama.cpp Q4_0" --bundle int4=256m-int4 --runs 3

A system that cannot be got ready or fails is left out of the table, with its reason. With --keep the JSON also becomes
the one of this processor's class in benchmarks/results/, from which classes.py makes the table in docs/engines.md.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

from classes import keep
from measuring import Asker, Failed, Question, Run, busy, machine, run
from systems import System, Work, systems
from tables import PICTURE, table

from smolvlm_edge.graphs import available_cores

Results = dict[str, dict[str, list[Run]]]
"""Runs by system and question."""


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options of every command that measures."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a folder with safetensors")
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and converted files")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="name of the files to write, without suffix")
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=FOLDER", help="instead of exporting")
    parser.add_argument("--system", action="append", default=[], metavar="PATTERN", help="only these, as in 'llama*'")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="other processes that compute meanwhile")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="seconds that one process may take")
    parser.add_argument("--runs", type=int, default=5)
    return parser


def ready(options: argparse.Namespace) -> tuple[dict[str, System], dict[str, str]]:
    """The systems that can be asked, and why others cannot."""
    bundles = {name: Path(folder) for name, _, folder in (each.partition("=") for each in options.bundle)}
    work = Work(options.checkpoint.absolute(), options.work.absolute(), bundles)
    found, failed = {}, {}
    for name, prepare in systems(work):
        if not options.system or any(fnmatch(name, pattern) for pattern in options.system):
            try:
                found[name] = prepare()
            except Exception as error:  # noqa: BLE001 - whatever keeps one peer from running is a result
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name}: {failed[name]}", file=sys.stderr)
    if not found:
        sys.exit("no system could be got ready")
    return found, failed


def measure(
    found: dict[str, System], failed: dict[str, str], questions: Sequence[Question], options: argparse.Namespace
) -> Results:
    """Ask all of them in turns, so that a machine that slows down slows all of them.

    A system that fails at a question is not asked it again, and the reason joins `failed`.
    """
    results: Results = {name: {} for name in found}
    given_up = set()
    with busy(options.busy):
        for number, question, (name, system) in _turns(options.runs, questions, found):
            if (name, question.name) in given_up:
                continue
            label = f"{number}/{options.runs} {question.name}, {name}"
            try:
                one = run(system, question, options.timeout)
            except Failed as error:
                given_up.add((name, question.name))
                failed[f"{name}, {question.name}"] = str(error)
                print(f"{label}: {error}", file=sys.stderr)
            else:
                results[name].setdefault(question.name, []).append(one)
                print(f"{label}: {one['ttft_ms'] / 1000:.2f} s to the first token", file=sys.stderr)
    return results


def _turns(
    runs: int, questions: Sequence[Question], found: dict[str, System]
) -> Iterable[tuple[int, Question, tuple[str, System]]]:
    return product(range(1, runs + 1), questions, found.items())


def write(out: Path, results: Results, found: dict[str, System], failed: dict[str, str], **about: Any) -> None:
    """OUT.json, everything that was measured."""
    measured = {
        name: {"bytes_on_disk": found[name].bytes_on_disk, "questions": questions}
        for name, questions in results.items()
    }
    report = {**about, "machine": machine(), "failed": failed, "systems": measured}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Get ready, measure in turns, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--prompt", default="Describe this image.")
    parser.add_argument("--keep", action="store_true", help="as the result of this class of processor (results/)")
    parser.add_argument("--depth", type=int, action="append", help="tokens before decoding; default 0, 1000 and 4000")
    options = parser.parse_args()
    if options.keep and options.busy:
        parser.error("--keep is for a quiet machine, and --busy makes it none")
    found, failed = ready(options)
    asker = Asker(options.checkpoint, options.tokens, options.threads)
    depths = [0, 1000, 4000] if options.depth is None else options.depth
    questions = [asker.about(PICTURE, [options.picture], options.prompt), *map(asker.of_depth, depths)]
    results = measure(found, failed, questions, options)
    asked = {name: getattr(options, name) for name in ("prompt", "tokens", "threads", "runs", "busy")}
    write(options.out, results, found, failed, asked=asked | {"picture": options.picture.name, "depths": depths})
    markdown = table(json.loads(options.out.with_suffix(".json").read_text()))
    options.out.with_suffix(".md").write_text(markdown)
    print(markdown, end="")
    if options.keep:
        print(f"kept in {keep(options.out.with_suffix('.json'))}: python benchmarks/classes.py", file=sys.stderr)


if __name__ == "__main__":
    main()
