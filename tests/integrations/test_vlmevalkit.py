"""VLMEvalKit's own `run.py` and `smol-edge eval --prompts family`: the same answers and the same score.

The kit is ModelScope's release of it, or the checkout that SMOL_EDGE_VLMEVALKIT names.
"""

import base64
import csv
import io
import json
import os
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import kit
import pytest
from command import smol_edge

from smolvlm_edge.evaluation.drawn import drawn_items

pytestmark = pytest.mark.integrations
ROWS = 50
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "black")
NEEDS = """
    pandas openpyxl tabulate tqdm portalocker validators requests rich python-dotenv sty num2words termcolor
    huggingface_hub xlsxwriter
""".split()  # noqa: SIM905
"""What the kit really uses here; the rest of what it imports is stood in for."""
READ = "import json, sys, pandas; print(pandas.read_excel(sys.argv[1]).astype(str).to_json(orient='records'))"


@pytest.fixture(scope="module")
def python(environment: Callable[..., Path]) -> Path:
    return environment("vlmevalkit", ".", *NEEDS)


@pytest.fixture(scope="module")
def folder(python: Path) -> Path:
    return kit.unpacked(python.parents[2])


def questions(path: Path) -> Path:
    """Drawn scenes of one picture whose answer names a colour, each with four colours to choose from."""
    random, rows = Random(0), []
    for item in islice(drawn_items(11), 1000):
        named = [colour for colour in COLOURS if colour in item.answers[0]]
        if len(named) != 1 or len(item.images()) > 1 or len(rows) == ROWS:
            continue
        others = [colour for colour in COLOURS if colour not in named]
        options = random.sample([*named, *random.sample(others, 3)], 4)
        file = io.BytesIO()
        item.images()[0].save(file, "PNG")
        rows.append(
            {
                "index": len(rows),
                "category": item.kind,
                "question": item.prompt,
                **dict(zip("ABCD", options, strict=True)),
                "answer": "ABCD"[options.index(named[0])],
                "image": base64.b64encode(file.getvalue()).decode(),
            }
        )
    assert len(rows) == ROWS
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["scenes", "MMStar"])
def test_run_py_gets_the_answers_and_the_score_of_eval(python: Path, folder: Path, tmp_path: Path, name: str) -> None:
    """As a file of one's own, which the kit leaves to `CustomMCQDataset`, and in the words for MMStar."""
    file = questions(tmp_path / f"{name}.tsv")
    here = Path(__file__).parent
    arguments = (
        "--data",
        name,
        "--model",
        "SmolEdge-demo",
        "--judge",
        "exact_matching",
        "--work-dir",
        tmp_path / "out",
    )
    command = [python, here / "vlmevalkit_run.py", folder, *arguments]
    environment = {**os.environ, "LMUData": str(tmp_path), "SMOL_EDGE_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = list((tmp_path / "out").rglob(f"SmolEdge-demo_{name}.xlsx"))
    assert found, ran.stderr[-3000:]
    theirs = {row["index"]: row["prediction"] for row in read(python, found[0])}
    hits = {row["index"]: float(row["hit"]) for row in read(python, next(found[0].parent.glob("*_result.xlsx")))}

    kept = tmp_path / "kept.jsonl"
    asked = smol_edge("eval", file, "--model", "demo", "--prompts", "family", "--results", kept, "--json")
    assert asked.returncode == 0, asked.stderr
    ours = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(ours) == ROWS
    assert {row["index"]: row["reply"] for row in ours} == theirs
    assert {row["index"]: row["score"] for row in ours} == hits
    assert json.loads(asked.stdout)["right"] == pytest.approx(sum(hits.values()) / ROWS, abs=1e-4)
    assert len(set(theirs.values())) > 4


def read(python: Path, file: Path) -> list[dict[str, Any]]:
    return json.loads(subprocess.run([python, "-c", READ, file], capture_output=True, text=True, check=True).stdout)
