"""The demonstration model: what a user sees with it, from the first command on, is right or wrong, not noise."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import SmolVLM
from smolvlm_edge.evaluation import ask_all
from smolvlm_edge.evaluation.drawn import drawn_questions
from smolvlm_edge.evaluation.family import plain
from smolvlm_edge.evaluation.results import Results

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SHAPES = EXAMPLES / "shapes.png"
CLIP = [EXAMPLES / f"clip-{i}.png" for i in range(1, 5)]
DESCRIPTION = (
    "The picture shows a large red circle at the top left, a small blue star in the middle "
    "and a large green triangle at the bottom right."
)
OFFLINE = "import socket\ndef refuse(*_, **__): raise AssertionError('a socket')\nsocket.socket.connect = refuse"


@pytest.fixture(scope="module")
def demo() -> SmolVLM:
    return SmolVLM.load("demo")


@pytest.fixture(autouse=True)
def no_other_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMOL_EDGE_MODEL", raising=False)


def test_the_first_command_answers_in_an_empty_home_without_a_network(tmp_path: Path) -> None:
    result = smol_edge("run", SHAPES, "describe", patch=OFFLINE, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert result.stdout == DESCRIPTION + "\n"
    assert result.stderr.startswith("note: the bundled demonstration model knows drawn shapes")
    assert not list(tmp_path.iterdir())


def test_named_it_needs_no_note() -> None:
    result = smol_edge("run", SHAPES, "What color is the star?", "--model", "demo")
    assert (result.stdout, result.stderr) == ("The star is blue.\n", "")


def test_another_default_comes_first(tiny_bundle, tmp_path: Path) -> None:
    bundle = tiny_bundle("tiny-idefics3", "fp32")
    result = smol_edge("run", "Hi", "--max-tokens", "1", env={"SMOL_EDGE_MODEL": str(bundle)})
    assert result.returncode == 0
    assert "demonstration model" not in result.stderr
    missing = smol_edge("run", "Hi", env={"SMOL_EDGE_MODEL": str(tmp_path / "none")})
    assert_fails(missing, 3, "none")


def test_load_without_a_name_loads_it(demo: SmolVLM) -> None:
    with SmolVLM.load() as model:
        assert model.bundle.folder == demo.bundle.folder
        assert str(model.generate(SHAPES, "describe")) == DESCRIPTION


def test_info_knows_it() -> None:
    result = smol_edge("info", "demo", "--json")
    assert json.loads(result.stdout)["model"]["model_type"] == "idefics3"


@pytest.mark.parametrize(
    ("pictures", "question", "answer"),
    [
        (["text.png"], "What does it say?", 'It says "HELLO".'),
        (["small-text.png"], "What does the green text say?", 'The green text says "K7XQ".'),
        (["chart.png"], "Which bar is the tallest?", "The blue bar is the tallest."),
        (["chart.png"], "How many bars are there?", "There are four bars."),
        (["shapes.png"], "Is there a red circle?", "Yes, there is a red circle."),
        (["shapes.png"], "Is there a red square?", "No, there is no red square."),
        (["shapes.png"], "Where is the blue star?", "The blue star is in the middle."),
        (["shapes.png"], "How many shapes are there?", "There are three shapes."),
        (["before.png", "after.png"], "What changed?", "The star changed from blue to orange."),
        (
            ["shapes.png"],
            "Who is the president of France?",
            "I cannot answer that. I only know drawn shapes, short texts",
        ),
    ],
)
def test_it_is_right_about_the_examples(demo: SmolVLM, pictures: list[str], question: str, answer: str) -> None:
    said = demo.generate([EXAMPLES / name for name in pictures], question)
    assert said.text.startswith(answer)
    assert said.finish_reason == "stop"


def test_it_follows_a_clip(demo: SmolVLM) -> None:
    assert str(demo.generate(CLIP, "What happens?", detail="low")) == "The red circle moves to the right."


def test_a_stream_is_the_answer_in_pieces(demo: SmolVLM) -> None:
    chunks = list(demo.stream(SHAPES, "describe"))
    assert "".join(chunk.text for chunk in chunks) == DESCRIPTION
    assert len([chunk for chunk in chunks if chunk.text]) > 10
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_json_carries_the_answer_and_what_it_took() -> None:
    result = smol_edge("run", EXAMPLES / "before.png", EXAMPLES / "after.png", "What changed?", "--json")
    found = json.loads(result.stdout)
    assert found["text"] == "The star changed from blue to orange."
    assert found["finish_reason"] == "stop"
    assert found["tiles"] == 10
    assert found["generated_tokens"] > 5


def test_fewer_tokens_cut_the_answer_short(demo: SmolVLM) -> None:
    said = demo.generate(SHAPES, "describe", max_tokens=4)
    assert said.finish_reason == "length"
    assert DESCRIPTION.startswith(said.text)


def test_the_readme_quotes_it_word_for_word(demo: SmolVLM) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \| ([^|]+) \|$", readme, re.MULTILINE)
    assert len(rows) >= 6
    for pictures, question, answer in rows:
        names = re.findall(r"`([^`]+)`", pictures)
        detail = "low" if len(names) > 2 else "high"
        assert str(demo.generate([EXAMPLES / name for name in names], question, detail=detail)) == answer


def test_it_is_right_about_scenes_that_no_training_saw(demo: SmolVLM) -> None:
    report = ask_all(demo, drawn_questions(limit=240), Results(), 128, lambda: None, partial(plain, ""))
    assert report.to_dict()["right"] >= 0.9


def test_small_text_needs_the_tiles(demo: SmolVLM) -> None:
    """Splitting works and matters: without it, small text is gone and large shapes are not."""
    shares = []
    for detail in ("high", "low"):
        report = ask_all(
            demo, drawn_questions(limit=300, detail=detail), Results(), 128, lambda: None, partial(plain, "")
        )
        shares.append(report.to_dict()["kinds"]["small text"]["score"])
    assert shares[0] > shares[1] + 0.3


def test_the_bundle_is_the_checkpoint_in_int8(demo: SmolVLM, tmp_path: Path) -> None:
    result = smol_edge("export", ROOT / "demo" / "checkpoint", "--quant", "int8", "--out", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    assert demo.bundle.recipe["name"] == "int8"
    with SmolVLM.load(tmp_path / "again") as again:
        for question in ("describe", "Where is the blue star?"):
            assert again.generate(SHAPES, question).token_ids == demo.generate(SHAPES, question).token_ids
