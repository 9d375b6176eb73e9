"""`smol-edge eval`: scores by the published rules, files of questions, and runs that continue where they stopped."""

import base64
import csv
import io
import json
import tracemalloc
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm_edge import ImageError, RequestError, SmolEdgeError
from smolvlm_edge.demo.scenes import MAKERS, scenes
from smolvlm_edge.evaluation.drawn import DEFAULT_COUNT, drawn_items, drawn_questions, fingerprint
from smolvlm_edge.evaluation.questions import Item, prompt
from smolvlm_edge.evaluation.report import Report
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.evaluation.scores.texts import levenshtein
from smolvlm_edge.evaluation.tsv import QuestionFile, file_questions

OPTIONS = {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"}
COLUMNS = ("index", "image", "question", "answer")


def item(metric: str, *answers: str, **fields: object) -> Item:
    return Item("1", "question 1", "kind", list, "What?", answers, metric, **fields)


def picture(colour: str = "red", size: int = 40) -> str:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_tsv(path: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = ()) -> Path:
    names = columns or tuple(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def a_row(index: object, **cells: str) -> dict[str, str]:
    return {"index": str(index), "image": picture(), "question": "What is it?", "answer": "a cat", **cells}


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four questions of three kinds, two of them about one picture."""
    rows = [
        a_row(10, category="animals"),
        a_row(11, category="plants", image="10", answer="['a tree', 'tree']"),
        a_row(12, category="animals", image=json.dumps([picture("blue"), picture("green")])),
        a_row(13, category="[red]things[/red]"),
    ]
    return write_tsv(tmp_path / "four.tsv", rows)


# -- scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It is a cat.", 1),
        ("it is  A CAT\n", 1),
        ("It is a cat", 1),
        ("It is a cat, or a dog.", 0),
        ("cat", 0),
        ("", 0),
    ],
)
def test_exact_match(reply: str, right: int) -> None:
    assert score(reply, item("exact", "It is a dog.", "It is a cat.")) == right


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. rabbit", "B"),
        ("The answer is: C.", "C"),
        ("**D**", "D"),
        ("It is a rabbit.", "B"),  # no letter: the only option whose text is there
        ("a RABBIT", "B"),
        ("A rabbit", "A"),  # the article counts as a letter, in VLMEvalKit too
        ("B or C", None),  # two letters, no text
        ("B or C, so dog", "D"),  # two letters decide nothing, one text does
        ("a cat and a dog", None),
        ("Z", None),
        ("Z, though a rabbit is there", None),
        ("b", None),
        ("spider", None),
        ("", None),
    ],
)
def test_multiple_choice(reply: str, letter: str | None) -> None:
    assert [letter for letter in OPTIONS if score(reply, item("choice", letter, options=OPTIONS))] == [letter] * bool(
        letter
    )


@pytest.mark.parametrize(
    ("reply", "answers", "expected"),
    [
        ("joseph", ["Joseph"], 1),
        (" The  Coca-Cola\ncompany", ["the coca-cola company"], 1),
        ("josef", ["joseph"], 1 - 2 / 6),
        ("josef", ["maria", "joseph", "anna"], 1 - 2 / 6),
        ("ab", ["ax"], 0.5),  # exactly the threshold counts
        ("abcde", ["abxyz"], 0),  # 0.4 does not
        ("it is joseph", ["joseph"], 0.5),
        ("", ["joseph"], 0),
    ],
)
def test_anls(reply: str, answers: list[str], expected: float) -> None:
    assert score(reply, item("anls", *answers)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("105", "100", 1),
        ("95.0", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("-98", "-100", 1),
        ("12%", "0.12", 1),
        ("12%", "12.5%", 1),
        ("12", "12%", 0),  # a percent sign makes a hundredth of it
        ("0", "0", 1),
        ("0.0", "0", 0),  # nothing is within 5 % of zero, and the texts differ
        ("1,000", "1000", 0),
        (" Blue", "blue", 1),
        ("blue.", "blue", 0),
        ("nan", "3", 0),
        ("inf", "3", 0),
    ],
)
def test_relaxed_accuracy(reply: str, answer: str, right: int) -> None:
    assert score(reply, item("relaxed", answer)) == right
    assert score(reply, item("relaxed", "something else", answer)) == right


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("Yes, there is a snowboard in the image.", "yes"),
        ("There is no snowboard.", "no"),
        ("Yes and no", None),
        ("I do not know", None),
        ("nothing, yesterday", None),
        ("", None),
    ],
)
def test_yes_or_no(reply: str, said: str | None) -> None:
    assert score(reply, item("yes/no", "Yes")) == (said == "yes")
    assert score(reply, item("yes/no", "no")) == (said == "no")


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("saturday", "sunday", 3), ("flaw", "lawn", 2), ("", "abc", 3), ("", "", 0)],
)
def test_levenshtein(one: str, other: str, distance: int) -> None:
    assert levenshtein(one, other) == distance


@cache
def by_definition(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        by_definition(one[1:], other) + 1,
        by_definition(one, other[1:]) + 1,
        by_definition(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
@settings(deadline=None)
def test_levenshtein_is_what_the_definition_says(one: str, other: str) -> None:
    assert levenshtein(one, other) == by_definition(one, other)


@given(st.text(max_size=20), st.text(max_size=20))
@settings(deadline=None)
def test_levenshtein_is_a_distance(one: str, other: str) -> None:
    distance = levenshtein(one, other)
    assert distance == levenshtein(other, one)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert (distance == 0) == (one == other)


@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3))
@settings(deadline=None)
def test_anls_is_bounded_symmetric_and_the_best_of_all_answers(reply: str, answers: list[str]) -> None:
    found = score(reply, item("anls", *answers))
    assert found == 0 or 0.5 <= found <= 1
    assert found == max(score(answer, item("anls", reply)) for answer in answers)
    assert score(reply, item("anls", *answers, reply)) == 1


# -- prompts ----------------------------------------------------------------------------------------


def test_prompts_are_worded_as_in_vlmevalkit() -> None:
    assert prompt("choice", "Which one?", "Look left.", {"A": "cat", "B": "dog"}) == (
        "Hint: Look left.\nQuestion: Which one?\nOptions:\nA. cat\nB. dog\n"
        "Please select the correct answer from the options above."
    )
    assert prompt("choice", "Which?", "", {"A": "x"}).startswith("Question: Which?\nOptions:\nA. x\n")
    assert prompt("yes/no", "Is it red?") == "Is it red?\nPlease answer yes or no."
    assert prompt("yes/no", "Is it red? Please answer yes or no.") == "Is it red? Please answer yes or no."
    assert prompt("anls", "Who?") == "Who?\nAnswer the question using a single word or phrase."
    assert prompt("exact", "Who?") == "Who?"


# -- drawn scenes -----------------------------------------------------------------------------------


def test_drawn_questions_are_held_out_balanced_and_repeatable() -> None:
    items = list(islice(drawn_items(3), 400))
    kinds = Counter(item.kind for item in items)
    seen = islice(scenes(9, held_out=True, weights=dict.fromkeys(MAKERS, 1.0)), 400)
    assert kinds.keys() == {question.kind for scene in seen for question in scene.questions}
    assert max(kinds.values()) - min(kinds.values()) <= 3
    again = list(islice(drawn_items(3), 400))
    assert [(item.index, item.prompt, item.answers) for item in items] == [
        (item.index, item.prompt, item.answers) for item in again
    ]
    assert len({item.index for item in items}) == 400
    assert drawn_questions().count == DEFAULT_COUNT
    assert len({fingerprint(0), fingerprint(0), fingerprint(1)}) == 2


def test_frames_of_a_clip_are_asked_unsplit_and_the_rest_as_the_user_likes() -> None:
    detail = {item.kind: item.detail for item in islice(drawn_items(0, "auto"), 60)}
    assert detail["frames"] == "low"
    assert detail["count"] == "auto"
    assert {item.detail for item in islice(drawn_items(0, "low"), 60)} == {"low"}
    clip = next(item for item in drawn_items(0) if item.kind == "frames")
    assert [each.mode for each in clip.images()] == ["RGB"] * 4


# -- files of questions -----------------------------------------------------------------------------


def test_a_file_is_read_with_its_options_hint_and_kinds(tmp_path: Path) -> None:
    rows = [
        a_row("x1", hint="Count.", A="one", B="two", C="nan", answer=" b ", category="counting"),
        a_row("x2", question='Line one\nline two\t"quoted"', answer="x", **{"l2-category": "l2", "split": "dev"}),
        a_row("x3", answer="['x', \"it's\"]", split="dev"),
        a_row("x4", answer='["x", "y"]'),
        a_row("x5", answer="[not a list]"),
    ]
    one, two, three, four, five = QuestionFile.open(write_tsv(tmp_path / "q.tsv", rows)).items("low")
    assert (one.metric, one.kind, one.answers, dict(one.options)) == (
        "choice",
        "counting",
        ("B",),
        {"A": "one", "B": "two"},
    )
    assert one.prompt.startswith("Hint: Count.\nQuestion: What is it?\nOptions:\nA. one\nB. two\nPlease")
    assert (two.metric, two.kind, two.answers) == ("exact", "l2", ("x",))
    assert two.prompt == 'Line one\nline two\t"quoted"'
    assert (three.kind, three.answers) == ("dev", ("x", "it's"))
    assert (four.kind, four.answers) == ("exact", ("x", "y"))
    assert five.answers == ("[not a list]",)
    assert {each.detail for each in (one, two, three, four, five)} == {"low"}
    assert "row 3 (index x3)" in three.name


def test_the_metric_is_yes_no_if_every_answer_is_and_what_the_user_says_comes_first(tmp_path: Path) -> None:
    rows = [a_row(1, answer="Yes"), a_row(2, answer="no")]
    path = write_tsv(tmp_path / "q.tsv", rows)
    assert [each.metric for each in QuestionFile.open(path).items()] == ["yes/no", "yes/no"]
    assert [each.metric for each in QuestionFile.open(path, "anls").items()] == ["anls", "anls"]
    write_tsv(path, [*rows, a_row(3, answer="maybe")])
    assert [each.metric for each in QuestionFile.open(path).items()] == ["exact"] * 3


def test_a_file_named_like_a_data_set_is_asked_and_scored_as_that_one(tmp_path: Path) -> None:
    only = lambda name, *rows: list(QuestionFile.open(write_tsv(tmp_path / f"{name}.tsv", list(rows))).items())  # noqa: E731
    chart, *_ = only("ChartQA_TEST", a_row(1, answer="12"))
    assert (chart.metric, chart.prompt) == (
        "relaxed",
        "What is it?\nAnswer the question using a single word or phrase.",
    )
    pope, *_ = only("POPE", a_row(1, answer="Yes"))
    assert (pope.metric, pope.prompt) == ("yes/no", "What is it?"), "the data set says itself what it wants"
    text, formula = only(
        "OCRBench",
        a_row(1, category="Doc-oriented VQA", answer="['a', 'b']"),
        a_row(2, category="Handwritten Mathematical Expression Recognition", answer="['x^2']"),
    )
    assert (text.metric, text.answers, formula.metric) == ("contains", ("a", "b"), "formula")
    opened, chosen = only(
        "MMMU_DEV_VAL",
        a_row(1, category="Art", split="dev", answer="red", A="", B="", C=""),
        a_row(2, category="Art", split="validation", answer="C", A="x", B="None", C="z"),
    )
    assert (opened.kind, opened.answers, opened.prompt) == ("dev", ("A",), "Question: What is it?")
    assert (chosen.kind, dict(chosen.options)) == ("validation", {"A": "x", "C": "z"}), "pandas takes None for nothing"


def test_what_the_user_says_comes_before_the_name_of_the_file(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "DocVQA_VAL.tsv", [a_row(1)])
    assert [each.metric for each in QuestionFile.open(path).items()] == ["anls"]
    assert [each.metric for each in QuestionFile.open(path, "exact").items()] == ["exact"]


def test_a_data_set_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "MathVista_MINI.tsv", [a_row(1)])
    with pytest.raises(RequestError, match=r"lacks the column question_type.*of MathVista_MINI"):
        QuestionFile.open(path)


def clip_row(index: int, **cells: str) -> dict[str, str]:
    row = a_row(index, video="clip", suffix=".gif", candidates="['A. one', 'B. two']", answer="B", duration="short")
    del row["image"]
    return row | cells


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=1000)
    return tmp_path / "clip.gif"


def test_videos_are_files_beside_the_file_of_questions(tmp_path: Path, clip: Path) -> None:
    path = write_tsv(tmp_path / "Video-MME.tsv", [clip_row(1), clip_row(2, video_path="./clip.gif")])
    one, two = QuestionFile.open(path).items()
    assert (one.metric, one.kind, one.answers) == ("first letter", "short", ("B",))
    assert [each.images()[0].source.resolve() for each in (one, two)] == [clip.resolve()] * 2
    assert one.prompt.endswith("of the correct option. Question: What is it?\nA. one\nB. two\nAnswer:")
    path = write_tsv(
        tmp_path / "MVBench.tsv", [clip_row(1, candidates="['one', 'two']", answer="two", start="0", end="1.5")]
    )
    (shown,) = (each.images()[0] for each in QuestionFile.open(path).items())
    assert (shown.start, shown.end) == (0, 1.5)


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        ("Video-MME", {"video": "other"}, ["there is no video", "other.gif"]),
        ("Video-MME", {"answer": "E"}, ["'E'", "2 options"]),
        ("MVBench", {"answer": "three"}, ["'three'", "candidates"]),
        ("MVBench", {"answer": "A. one", "start": "soon"}, ["start", "'soon'", "seconds"]),
        ("TempCompass_MCQ", {"task_type": "caption_matching"}, ["'Caption A: ...'"]),
    ],
)
def test_rows_with_videos_that_cannot_be_asked(
    tmp_path: Path, clip: Path, name: str, cells: dict[str, str], words: list[str]
) -> None:
    path = write_tsv(tmp_path / f"{name}.tsv", [clip_row(1, **cells) | {"dim": "", "task_type": "", **cells}])
    with pytest.raises(SmolEdgeError) as caught:
        QuestionFile.open(path)
    for word in [f"{name}.tsv, row 1", *words]:
        assert word in str(caught.value)


def test_an_image_may_be_the_index_of_an_earlier_row_or_a_list(tmp_path: Path) -> None:
    rows = [
        a_row(1, image=picture("red")),
        a_row(2, image=picture("blue")),
        a_row(3, image="1"),
        a_row(4, image="3"),
        a_row(5, image=str([picture("green"), picture("blue")])),
        a_row(6, image="5"),
    ]
    path = write_tsv(tmp_path / "q.tsv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Excel saves it
    colours = [
        [Image.open(io.BytesIO(each)).convert("RGB").getpixel((0, 0)) for each in item.images()]
        for item in QuestionFile.open(path).items()
    ]
    red, green, blue = (255, 0, 0), (0, 128, 0), (0, 0, 255)
    assert colours == [[red], [blue], [red], [red], [green, blue], [green, blue]]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    path = write_tsv(tmp_path / "q.tsv", [a_row(i, image=image) for i in range(30)])
    tracemalloc.start()
    questions = file_questions(path)
    assert sum(len(item.images()) for item in questions.items) == 30
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 3, "30 pictures were read, one at a time"


def test_rows_without_an_image_are_left_out_and_said_to_be(tmp_path: Path, caplog) -> None:
    path = write_tsv(tmp_path / "q.tsv", [a_row(1), a_row(2, image="nan", answer=""), a_row(3, image="")])
    questions = QuestionFile.open(path)
    assert [each.index for each in questions.items()] == ["1"]
    assert questions.count == 1
    assert len(caplog.records) == 1
    assert "2 rows" in caplog.text


@pytest.mark.parametrize(
    ("rows", "metric", "words"),
    [
        ([], None, ["holds no question"]),
        ([a_row(1, image="")], None, ["holds no question"]),
        ([a_row(1), a_row(1)], None, ["row 2 (index 1)", "same index"]),
        ([a_row(1, image="7")], None, ["row 1 (index 1)", "'7'", "earlier row"]),
        ([a_row(1, image="2"), a_row(2)], None, ["row 1", "earlier row"]),
        ([a_row(1), a_row(2, answer="")], None, ["row 2 (index 2)", "no answer"]),
        ([a_row(1, answer="nan")], None, ["no answer"]),
        ([a_row(1, answer="[]")], None, ["empty list"]),
        ([a_row(1, A="x", B="y", answer="C")], None, ["'C'", "2 options"]),
        ([a_row(1, answer="C")], "choice", ["'C'", "0 options"]),
        ([a_row(1, answer="perhaps")], "yes/no", ["'perhaps'", "--metric"]),
    ],
)
def test_a_file_that_cannot_be_asked(tmp_path: Path, rows: list, metric: str | None, words: list[str]) -> None:
    path = write_tsv(tmp_path / "q.tsv", rows, columns=() if rows else COLUMNS)
    with pytest.raises(RequestError) as caught:
        QuestionFile.open(path, metric)
    for word in ["q.tsv", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["lacks the column", "index, image, question, answer"]),
        (b"index\timage\tquestion\n1\t2\t3\n", ["lacks the column answer"]),
        (b"index,image,question,answer\n", ["tab-separated"]),
        (b"index\timage\tquestion\tanswer\n1\tabc\tWhat", ["row 1", "columns"]),
        (b"index\timage\tquestion\tanswer\n1\tabc\tWhat\tyes\tno\n", ["row 1", "columns"]),
        (b'index\timage\tquestion\tanswer\n1\t"abc\tWhat\tyes\n2\tabc\tWhat\tyes\n', ["row 1", "columns"]),
        (b"index\timage\tquestion\tanswer\n1\tabc\tWh\xff\tyes\n", ["UTF-8"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ["UTF-8"]),
    ],
)
def test_a_damaged_file(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "q.tsv"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        QuestionFile.open(path)
    for word in ["q.tsv", *words]:
        assert word in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.tsv"):
        with pytest.raises(RequestError, match="is no file"):
            QuestionFile.open(path)


def test_broken_base64_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    rows = [a_row(1), a_row(2, image=picture()[:-1]), a_row(3)]
    with pytest.raises(ImageError, match=r"row 2 \(index 2\).*base64"):
        QuestionFile.open(write_tsv(tmp_path / "q.tsv", rows))


# -- the command ------------------------------------------------------------------------------------


def test_the_report_is_a_mean_by_kind() -> None:
    report = Report()
    for kind, value in [("b", 1.0), ("a", 0.5), ("b", 0.0), ("b", 0.0)]:
        report.add(kind, value)
    assert report.lines() == [("a", 1, 0.5), ("b", 3, pytest.approx(1 / 3)), ("all", 4, 0.375)]
    assert report.to_dict()["kinds"]["b"] == {"questions": 3, "score": 0.3333}


def test_json_has_the_model_and_a_score_for_every_kind(bundle: Path, four: Path) -> None:
    result = smol_edge("eval", four, "--model", bundle, "--max-tokens", "3", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["model"] == {"name": "tiny-idefics3-fp32", "quant": "fp32", "engine": "onnxruntime"}
    assert (report["questions"], report["asked"]) == (4, 4)
    assert {kind: found["questions"] for kind, found in report["kinds"].items()} == {
        "animals": 2,
        "plants": 1,
        "[red]things[/red]": 1,
    }
    assert 0 <= report["right"] <= 1
    assert report["seconds"] > 0
    assert sorted(four.parent.iterdir()) == [four], "nothing is written without --results"


def test_drawn_scenes_make_a_table_by_kind(bundle: Path) -> None:
    arguments = ("eval", "--limit", "30", "--max-tokens", "2", "--detail", "low", "--seed", "5")
    result = smol_edge(*arguments, env={"SMOL_EDGE_MODEL": str(bundle), "COLUMNS": "80"})
    assert (result.returncode, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head.split("  ")[0] == "kind"
    rows = {line[:-20].strip(): line.split()[-2:] for line in lines}
    kinds = Counter(item.kind for item in islice(drawn_items(5), 30))
    assert lines[-1].split()[:2] == ["all", "30"]
    assert sum(int(count) for count, _ in rows.values()) == 60
    assert len(lines) == len(kinds) + 1
    assert all(0 <= float(score) <= 100 for _, score in rows.values())


def test_a_video_is_asked_about(tiny_bundle, tmp_path: Path, clip: Path) -> None:
    path = write_tsv(
        tmp_path / "MVBench.tsv", [clip_row(1, candidates="['one', 'two']", answer="two", task_type="Action")]
    )
    asked = ("eval", path, "--model", tiny_bundle("tiny-smolvlm", "fp32"), "--max-tokens", "2", "--json")
    for prompts in ("plain", "family"):
        report = json.loads(smol_edge(*asked, "--prompts", prompts).stdout)
        assert report["kinds"].keys() == {"Action"}


def test_right_replies_count(bundle: Path, four: Path) -> None:
    patch = """
from smolvlm_edge import SmolVLM
import types
def answer(self, requests, **options):
    return (types.SimpleNamespace(text='A tree.') for _ in requests)
SmolVLM.generate_many = answer
"""
    report = json.loads(smol_edge("eval", four, "--model", bundle, "--json", patch=patch).stdout)
    assert report["right"] == 0.25
    assert report["kinds"]["plants"] == {"questions": 1, "score": 1.0}
    assert report["kinds"]["animals"]["score"] == 0


def interrupt_at(question: int) -> str:
    return f"""
import os, signal
from smolvlm_edge import SmolVLM
generate_many = SmolVLM.generate_many
def interrupted(self, requests, **options):
    for number, answer in enumerate(generate_many(self, requests, **options), start=1):
        if number == {question}:
            os.kill(os.getpid(), signal.SIGINT)
        yield answer
SmolVLM.generate_many = interrupted
"""


def test_an_interrupted_run_continues(bundle: Path, four: Path, tmp_path: Path) -> None:
    kept, whole = tmp_path / "kept.jsonl", tmp_path / "whole.jsonl"
    arguments = ("eval", four, "--model", bundle, "--max-tokens", "4", "--json", "--results")
    assert_fails(smol_edge(*arguments, kept, patch=interrupt_at(3)), 130, "interrupted")
    before = kept.read_bytes()
    assert before.count(b"\n") == 1 + 2
    with kept.open("ab") as file:
        file.write(b'{"index": "12", "ki')  # as a power cut leaves it
    continued = json.loads(smol_edge(*arguments, kept).stdout)
    assert (continued["questions"], continued["asked"]) == (4, 2)
    assert kept.read_bytes().startswith(before)
    at_once = json.loads(smol_edge(*arguments, whole).stdout)
    assert kept.read_bytes() == whole.read_bytes()
    assert continued["kinds"] == at_once["kinds"]
    again = json.loads(smol_edge(*arguments, kept).stdout)
    assert (again["questions"], again["asked"]) == (4, 0)
    assert kept.read_bytes() == whole.read_bytes()


def test_results_hold_prompt_reply_answers_and_score(bundle: Path, four: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    result = smol_edge("eval", four, "--model", bundle, "--max-tokens", "4", "--results", kept, "--limit", "2")
    header, _, second = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
    assert result.returncode == 0
    assert header["max_tokens"] == 4
    assert second.pop("reply") != ""
    assert second == {
        "index": "11",
        "kind": "plants",
        "prompt": "What is it?",
        "answers": ["a tree", "tree"],
        "score": 0.0,
    }
    limited = smol_edge(
        "eval", four, "--model", bundle, "--max-tokens", "4", "--results", kept, "--limit", "1", "--json"
    )
    assert json.loads(limited.stdout)["questions"] == 1, "a reply beyond the limit does not count"


def test_results_of_another_run_are_refused_and_left_alone(
    bundle: Path, tiny_bundle, four: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.jsonl"
    start = ("eval", four, "--limit", "1", "--results", kept)
    assert smol_edge(*start, "--model", bundle, "--max-tokens", "2").returncode == 0
    before = kept.read_bytes()
    no_engine = (
        "import smolvlm_edge.model; smolvlm_edge.model.open_engines = None"  # it is refused before a model is loaded
    )
    for arguments, word in [
        (("--model", bundle, "--max-tokens", "3"), "max_tokens"),
        (("--model", bundle, "--max-tokens", "2", "--detail", "low"), "detail"),
        (("--model", bundle, "--max-tokens", "2", "--metric", "anls"), "metric"),
        (("--model", tiny_bundle("tiny-smolvlm", "fp32"), "--max-tokens", "2"), "model"),
    ]:
        assert_fails(smol_edge(*start, *arguments, patch=no_engine), 2, "kept.jsonl", f"differs in {word}", "--results")
    four.write_bytes(four.read_bytes().replace(b"What is it", b"What is that"))
    assert_fails(smol_edge(*start, "--model", bundle, "--max-tokens", "2"), 2, "differs in questions")
    assert kept.read_bytes() == before
    assert_fails(smol_edge("eval", "--model", bundle, "--results", four), 2, "four.tsv", "other than results")
    kept.write_bytes(before + b"{}\n")
    four.write_bytes(four.read_bytes().replace(b"What is that", b"What is it"))
    assert_fails(smol_edge(*start, "--model", bundle, "--max-tokens", "2"), 2, "kept.jsonl, line 3")


def test_a_picture_that_cannot_be_decoded_keeps_the_replies_before_it(bundle: Path, tmp_path: Path) -> None:
    text = base64.b64encode(b"this is no picture, however long the text may be made for it").decode()
    path = write_tsv(tmp_path / "q.tsv", [a_row(1), a_row(2), a_row(3, image=text), a_row(4)])
    arguments = ("eval", path, "--model", bundle, "--max-tokens", "2", "--results", tmp_path / "kept.jsonl")
    assert_fails(smol_edge(*arguments), 5, "q.tsv, row 3 (index 3)", "no picture", "--limit 2")
    assert len((tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()) == 1 + 2
    assert json.loads(smol_edge(*arguments, "--limit", "2", "--json").stdout)["asked"] == 0


def test_mistakes_are_found_before_the_model_is_loaded(bundle: Path, four: Path, tmp_path: Path) -> None:
    no_engine = "import smolvlm_edge.model; smolvlm_edge.model.open_engines = None"
    without = tmp_path / "without.tsv"
    without.write_text(four.read_text(encoding="utf-8").replace("answer", "solution"), encoding="utf-8")
    for arguments, exit_code, words in [
        ((without, "--model", bundle), 2, ["without.tsv", "lacks the column answer"]),
        ((tmp_path / "missing.tsv", "--model", bundle), 2, ["missing.tsv", "is no file"]),
        ((four, "--model", bundle, "--seed", "3"), 2, ["--seed"]),
        (("--model", bundle, "--metric", "anls"), 2, ["--metric"]),
        ((four, "--model", tmp_path / "nowhere"), 3, ["nowhere"]),
    ]:
        assert_fails(smol_edge("eval", *arguments, patch=no_engine), exit_code, *words)
    assert smol_edge("eval", four, "--model", bundle, "--limit", "0").returncode == 2
