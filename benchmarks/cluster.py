r"""Captions on a Ray cluster of two nodes, all on this machine, beside `smol-edge describe --parallel` of the same.

    python benchmarks/cluster.py --ray environment/bin/python [--pictures 1000] [--workers 2 4] [--parallel 1 8]

draws so many pictures (the demonstration model's scenes) into a Parquet table, has them described by the demonstration
model, and prints a JSON line for each run: seconds in all, from the start of the program to its end, and pictures/s
both of that and of the work alone. What `--ray` names is an interpreter with `pip install '.' 'ray[data]' psutil`; the
program that it runs is the test's, tests/integrations/ray_pictures.py. Every worker has one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smolvlm_edge.demo.scenes import draw, scenes

PROGRAM = Path(__file__).parents[1] / "tests" / "integrations" / "ray_pictures.py"
IN_A_FILE = 50
QUIET = {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
MAX_TOKENS = 8
"""As the program asks for."""


def write_table(folder: Path, count: int) -> None:
    """Files of pictures with their numbers."""
    drawn = (draw(scene.sketches[0]) for scene in scenes(1, held_out=True, weights={"describing": 1.0}))
    folder.mkdir()
    for first in range(0, count, IN_A_FILE):
        rows = []
        for picture in islice(drawn, min(IN_A_FILE, count - first)):
            file = BytesIO()
            picture.save(file, "PNG")
            rows.append(file.getvalue())
        ids = list(range(first, first + len(rows)))
        pq.write_table(pa.table({"id": ids, "bytes": rows}), folder / f"{first:06}.parquet")


def on_ray(table: Path, out: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """With so many workers; a last time, with one of two killed."""
    for extra in (*(["--workers", str(workers)] for workers in options.workers), ["--workers", "2", "--kill"]):
        line = [options.ray.absolute(), PROGRAM, table, out / "-".join(extra), *extra]
        said, seconds = timed(line)
        report = json.loads(said.splitlines()[-1])
        rows = report["rows"]
        once = sorted(row["id"] for row in rows) == list(range(options.pictures))
        assert once, "every picture once"
        assert not any(row["error"] for row in rows)
        yield about(f"Ray {' '.join(extra)}", options.pictures, seconds, report["seconds"])


def by_describe(table: Path, out: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """By one process."""
    for parallel in options.parallel:
        line = [sys.executable, "-m", "smolvlm_edge.cli", "describe", table, "--out", out / f"{parallel}.jsonl"]
        line += ["--prompt", "describe", "--max-tokens", str(MAX_TOKENS), "--parallel", str(parallel), "--json"]
        _, seconds = timed(line)
        yield about(f"describe --parallel {parallel}", options.pictures, seconds, seconds)


def timed(line: list[Any]) -> tuple[str, float]:
    """What a program prints, and its seconds."""
    start = time.monotonic()
    result = subprocess.run(
        list(map(str, line)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **QUIET},
        cwd=PROGRAM.parent,  # where workers look for modules, too: the repository is not laid out as the package
    )
    return result.stdout, time.monotonic() - start


def about(system: str, pictures: int, seconds: float, working: float) -> dict[str, Any]:
    """A line."""
    rates = {"pictures/s": round(pictures / seconds, 1), "of the work alone": round(pictures / working, 1)}
    return {"system": system, "pictures": pictures, "seconds": round(seconds, 1), **rates}


def main() -> None:
    """One after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", type=Path, required=True, help="an interpreter that has Ray and smol-edge")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--parallel", type=int, nargs="*", default=[1, 8])
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        table = Path(name) / "pictures"
        write_table(table, options.pictures)
        for run in (by_describe, on_ray):
            for line in run(table, Path(name), options):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
