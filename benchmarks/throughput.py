r"""Many callers at once: this project beside llama.cpp's server with as many slots, in turns, in one run.

    python benchmarks/throughput.py 256m --work FOLDER --picture china.jpg --out throughput --bundle int4=256m-int4

asks 1, 2, 4, ... 64 callers' questions at the same moment, each with a picture of its own (the given one, shifted), in
detail low and high and without a picture, and writes throughput.json, throughput.md and throughput.svg: tokens/s in
all, from the first question to the last token; time to first token and time between tokens, median and 95th percentile;
peak RSS. llama.cpp always cuts a picture, so that it is not asked in detail low. Every run is a process of its own.

    python benchmarks/throughput.py 256m --work peers --picture china.jpg --out one --callers 1 16 --detail high
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from curves import Panel, draw
from environments import llama_server
from measuring import machine
from peers.callers import Asked
from PIL import Image, ImageChops
from systems import PEERS, System, Work, systems

from smolvlm_edge.graphs import available_cores

CALLERS = (1, 2, 4, 8, 16, 32, 64)
DETAILS = ("text", "low", "high")
POSITIONS = {"text": 512, "low": 512, "high": 1536}
"""Of every slot: prompt and answer."""
PROMPT = "Describe this image."
STORY = "Tell me a long story about a picture that nobody had seen."
SMOL_EDGE, LLAMA_CPP = "smol-edge int4, ONNX Runtime", "llama.cpp Q4_0"


@dataclass(frozen=True)
class Figures:
    """Of one run."""

    tokens_per_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    between_p50_ms: float
    between_p95_ms: float
    peak_rss_bytes: int

    @classmethod
    def of(cls, run: dict[str, Any], tokens: int) -> "Figures":
        """What a report of `peers/callers.py` comes to, of callers who get so many tokens each."""
        callers: list[list[float]] = run["callers"]
        first = [tokens[0] for tokens in callers]
        between = [1000 * (late - soon) for each in callers for soon, late in pairwise(each)]
        rate = tokens * len(callers) / run["seconds"]  # not every token brings text, which is what a client sees
        return cls(rate, median(first), _p95(first), median(between), _p95(between), run["peak_rss_bytes"])


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def pictures(source: Path, folder: Path, count: int) -> list[str]:
    """A file for each caller, all of one size and none like another."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        ImageChops.offset(picture, 7 * number, 0).save(path)
    return [str(path) for path in paths]


def command(name: str, system: System, server: Path | None, detail: str) -> tuple[list[str | Path], dict[str, Any]]:
    """What answers many callers, and its `model`."""
    python = system.command[0]
    if name == SMOL_EDGE:
        return [python, PEERS / "many_smol_edge.py"], system.model
    return [python, PEERS / "many_llama_cpp.py"], system.model | {"server": str(server), "positions": POSITIONS[detail]}


def runs(found: dict[str, System], server: Path | None, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All of them, in turns; one that fails says why."""
    with TemporaryDirectory() as folder:
        shown = pictures(options.picture, Path(folder), max(options.callers))
        turns = product(range(options.runs), options.detail, options.callers, found.items())
        for _, detail, callers, (name, system) in turns:
            if detail == "low" and name != SMOL_EDGE:
                continue
            program, model = command(name, system, server, detail)
            some, prompt = ([], STORY) if detail == "text" else (shown[:callers], PROMPT)
            width = min(callers, options.slots)
            spoken = "high" if detail == "text" else detail
            asked = Asked(model, callers, width, some, prompt, options.tokens, spoken, options.threads)
            result = subprocess.run([*program, json.dumps(asdict(asked))], capture_output=True, text=True, check=False)
            about = {"system": name, "detail": detail, "callers": callers}
            if result.returncode:
                yield about | {"failed": (result.stderr.strip().splitlines() or ["?"])[-1]}
            else:
                yield about | asdict(Figures.of(json.loads(result.stdout.splitlines()[-1]), options.tokens))


def table(measured: list[dict[str, Any]]) -> str:
    """Medians over the runs, as Markdown."""
    lines = [
        "| detail | callers | | tokens/s | first token s | between ms | peak MB |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for (detail, callers, system), rows in _groups(measured).items():
        one = {key: median(row[key] for row in rows) for key in Figures.__dataclass_fields__}
        lines.append(
            f"| {detail} | {callers} | {system} | {one['tokens_per_s']:.1f} "
            f"| {one['ttft_p50_s']:.2f} / {one['ttft_p95_s']:.2f} "
            f"| {one['between_p50_ms']:.0f} / {one['between_p95_ms']:.0f} | {one['peak_rss_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(
        [*lines, "", "Medians; where there are two figures, median and 95th percentile of all callers.", ""]
    )


def plot(measured: list[dict[str, Any]]) -> str:
    """Tokens/s over callers, a panel for each detail."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (detail, callers, system), rows in _groups(measured).items():
        point = float(callers), median(row["tokens_per_s"] for row in rows)
        panels.setdefault(detail, {}).setdefault(system, []).append(point)
    return draw([Panel(f"tokens/s in all, {detail}", "callers", curves) for detail, curves in panels.items()])


def _groups(measured: list[dict[str, Any]]) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in measured:
        if "failed" not in row:
            groups.setdefault((row["detail"], row["callers"], row["system"]), []).append(row)
    return groups


def main() -> None:
    """Get ready, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a folder with safetensors")
    parser.add_argument("--work", type=Path, required=True, help="folder for environments and converted files")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="name of the files to write, without suffix")
    parser.add_argument("--bundle", action="append", default=[], metavar="int4=FOLDER", help="instead of exporting")
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    parser.add_argument("--slots", type=int, default=64, help="answered at once, at most")
    parser.add_argument("--detail", nargs="+", choices=DETAILS, default=DETAILS)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--without-peer", action="store_true", help="this project alone")
    options = parser.parse_args()
    bundles = {name: Path(folder) for name, _, folder in (each.partition("=") for each in options.bundle)}
    work = Work(options.checkpoint.absolute(), options.work.absolute(), bundles)
    names = [SMOL_EDGE] if options.without_peer else [SMOL_EDGE, LLAMA_CPP]
    found = {name: prepare() for name, prepare in systems(work) if name in names}
    server = None if options.without_peer else llama_server(work.environment("llama.cpp"))
    measured = []
    for run in runs(found, server, options):
        print(json.dumps(run), file=sys.stderr)
        measured.append(run)
    asked = {"tokens": options.tokens, "threads": options.threads, "slots": options.slots, "runs": options.runs}
    report = {"asked": asked, "machine": machine(), "measured": measured}
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(measured))
    options.out.with_suffix(".svg").write_text(plot(measured))
    print(table(measured), end="")


if __name__ == "__main__":
    main()
