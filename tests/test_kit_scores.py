"""Replies are scored as VLMEvalKit scores them: goldens/kit.json holds made-up ones with the verdicts of its functions.

Made by make_kit_goldens.py from the package that the file names.
"""

import json
from pathlib import Path

import pytest

from smolvlm_edge.evaluation.datasets import DATA_SETS
from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.rows import Row
from smolvlm_edge.evaluation.scores import score

SETS = json.loads((Path(__file__).parent / "goldens" / "kit.json").read_text(encoding="utf-8"))["sets"]


@pytest.mark.parametrize("name", SETS)
def test_replies_are_scored_as_in_the_kit(name: str) -> None:
    rows = SETS[name]
    assert len(rows) >= 100
    assert len({row["score"] > 0 for row in rows}) == 2
    differing = []
    for number, row in enumerate(rows):
        cells = {column: cell for column, cell in row.items() if isinstance(cell, str)}
        scored = DATA_SETS[name].scored(Row(f"row {number}", cells))
        item = Item(str(number), "", "", list, "?", scored.answers, scored.rule, options=scored.options)
        found = score(row["prediction"], item)
        if found != pytest.approx(row["score"], abs=1e-6):
            differing.append((row, found))
    assert not differing
