"""Questions are worded and replies scored as in VLMEvalKit: goldens/kit.json holds what its own functions say.

Made by make_kit_goldens.py from the package that the file names.
"""

import json
from pathlib import Path

import pytest

from smolvlm_edge.evaluation.datasets import DATA_SETS
from smolvlm_edge.evaluation.family import Wording, frames, message, word
from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.rows import Row
from smolvlm_edge.evaluation.scores import score

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "kit.json").read_text(encoding="utf-8"))
SETS, PROMPTS = GOLDENS["sets"], GOLDENS["prompts"]
VIDEOS = [name for name in PROMPTS if DATA_SETS[name].shows_videos]


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


def row_of(cells: dict) -> Row:
    return Row("row", {column: cell for column, cell in cells.items() if cell is not None})


def in_a_turn(wording: Wording) -> str:
    """As the family's template puts it: a space before a text that comes first, none before a picture."""
    first = "" if isinstance(wording.parts[0], int) else " "
    turn = first + "".join("<image>" if isinstance(part, int) else part for part in wording.parts)
    return f"<|im_start|>User:{turn}<end_of_utterance>\nAssistant:" + (f" {wording.prefill}" if wording.prefill else "")


@pytest.mark.parametrize("name", PROMPTS)
def test_questions_are_worded_as_the_kit_words_them_for_any_model(name: str) -> None:
    for each in PROMPTS[name]:
        row = row_of(each["row"])
        pictures = 2 if "<image 2>" in row.cells["question"] else 1
        found = message(name, DATA_SETS[name].asked(row), pictures)
        if name in VIDEOS:  # the video stands for its frames, and what the system says stands with the family's wording
            texts = " ".join(part.strip() for part in each["message"] if isinstance(part, str)).strip()
            assert found == (0, texts.removeprefix(word(name, found).system).strip())
        else:
            *rest, last = each["message"]
            assert (*found[:-1], found[-1].rstrip()) == (*rest, last.rstrip())


@pytest.mark.parametrize("name", [name for name in PROMPTS if name not in VIDEOS])
@pytest.mark.parametrize("second", [False, True])
def test_the_family_is_asked_as_its_classes_in_the_kit_are(name: str, second: bool) -> None:
    for each in PROMPTS[name]:
        assert in_a_turn(word(name, tuple(each["message"]), second=second)) == each["prompts"][second]


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_announced_as_in_the_kit_but_for_spaces(name: str) -> None:
    for each in PROMPTS[name]:
        wording = frames(name, tuple(each["message"]))
        turns = f"System: {wording.system}<end_of_utterance>\nUser: " + in_a_turn(wording).split("User:")[1]
        kits = each["prompts"][0].replace("<|im_start|>", "")
        assert apart(turns) == apart(kits)


def apart(prompt: str) -> list[str]:
    return prompt.replace("<end_of_utterance>", " <end_of_utterance> ").split()
