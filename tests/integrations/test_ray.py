"""Captions on a cluster of two nodes (Ray), in Daft and in Spark's local mode: the real programs."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm_edge import SmolVLM

pytestmark = pytest.mark.integrations
HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
PICTURES = ["shapes.png", "text.png", "chart.png", "before.png"]
COUNT = int(os.environ.get("SMOL_EDGE_RAY_PICTURES", "80"))
BROKEN = 13
"""Every picture whose number this divides is none."""
MAKE = """
import os, sys
import pyarrow as pa, pyarrow.parquet as pq
count, broken, out, *files = sys.argv[1:]
pictures = [open(file, "rb").read() for file in files]
os.mkdir(out)
for first in range(0, int(count), 8):
    ids = range(first, min(first + 8, int(count)))
    rows = [b"no picture" if i % int(broken) == 0 else pictures[i % len(pictures)] for i in ids]
    pq.write_table(pa.table({"id": list(ids), "bytes": rows}), f"{out}/{first:05}.parquet")
"""


@pytest.fixture(scope="module")
def python(environment: Callable[..., Path]) -> Path:
    return environment("ray", ".", "ray[data]>=2.60", "psutil", "daft>=0.7", "pyspark>=4", "pandas")


@pytest.fixture(scope="module")
def pictures(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "table"
    files = [str(EXAMPLES / name) for name in PICTURES]
    subprocess.run([python, "-c", MAKE, str(COUNT), str(BROKEN), str(out), *files], check=True)
    return out


@pytest.fixture(scope="module")
def captions() -> list[str]:
    """Of the four pictures, by this process."""
    with SmolVLM.load("demo") as model:
        return [model.generate(EXAMPLES / name, "describe", max_tokens=8).text for name in PICTURES]


def run(python: Path, program: str, *arguments: object) -> Any:
    command = [str(python), str(HERE / program), *map(str, arguments)]
    # a cluster reaches no hub, and neither must its workers want to
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "DAFT_ANALYTICS_ENABLED": "0"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def assert_each_once(rows: list[dict[str, Any]], captions: list[str], count: int = COUNT) -> None:
    assert sorted(row["id"] for row in rows) == list(range(count))
    for row in rows:
        if row["id"] % BROKEN == 0:
            assert (row["caption"], bool(row["error"])) == ("", True)
        else:
            assert (row["caption"], row["error"]) == (captions[row["id"] % len(PICTURES)], "")


@pytest.mark.parametrize("workers", [2, 4])
def test_a_cluster_of_two_nodes(
    python: Path, pictures: Path, captions: list[str], tmp_path: Path, workers: int
) -> None:
    report = run(python, "ray_pictures.py", pictures, tmp_path / "out", "--workers", workers)
    assert report["nodes"] == 2
    assert_each_once(report["rows"], captions)


def test_every_picture_once_though_a_worker_is_killed(
    python: Path, pictures: Path, captions: list[str], tmp_path: Path
) -> None:
    report = run(python, "ray_pictures.py", pictures, tmp_path / "out", "--kill")
    assert report["killed"]
    assert_each_once(report["rows"], captions)


def test_a_second_run_does_what_is_missing(python: Path, pictures: Path, captions: list[str], tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for file in sorted(pictures.iterdir())[: COUNT // 16]:  # of eight pictures each
        shutil.copy(file, half)
    options = [tmp_path / "out", "--checkpoint", tmp_path / "checkpoint"]
    first = run(python, "ray_pictures.py", half, *options)
    assert_each_once(first["rows"], captions, COUNT // 16 * 8)
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    second = run(python, "ray_pictures.py", pictures, *options)
    assert_each_once(second["rows"], captions)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in written} == written


def test_daft(python: Path, pictures: Path, captions: list[str]) -> None:
    assert_each_once(run(python, "daft_pictures.py", pictures, 50), captions, 50)


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark(python: Path, pictures: Path, captions: list[str]) -> None:
    assert_each_once(run(python, "spark_pictures.py", pictures, 50), captions, 50)
