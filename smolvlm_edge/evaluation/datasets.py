"""The data sets that VLMEvalKit knows by name: how it words their questions, and by which rule replies are scored.

A data set goes by its file's name, as in the kit. Read from ms-vlmeval 0.0.20; see `scores`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import NamedTuple

from smolvlm_edge.errors import RequestError
from smolvlm_edge.evaluation.questions import Rule, choices, phrase
from smolvlm_edge.evaluation.rows import Row

FORMULAS = "Handwritten Mathematical Expression Recognition"
"""The category of OCRBench whose answers are LaTeX."""
OTHER_ANSWERS = "Other Answers"


class Scored(NamedTuple):
    """How the reply to a question is scored."""

    rule: Rule
    answers: tuple[str, ...]
    options: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set, or several that are alike."""

    scored: Callable[[Row], Scored]
    """May raise RequestError, as `Row.answer`."""
    asked: Callable[[Row], str] = field(default=lambda row: row.cells["question"])
    """The kit's wording, white space at the end left out."""
    kind: str = ""
    """The column whose values the report tells apart, if the usual ones are not meant."""
    columns: tuple[str, ...] = ()
    """What its rows need beside the usual."""
    shows_videos: bool = False
    """Whether its rows name files of videos instead of having pictures in them; see `Row.video`."""


def by(rule: Rule) -> Callable[[Row], Scored]:
    """One rule for all rows."""
    return lambda row: Scored(rule, row.answers())


def lettered_question(row: Row) -> str:
    """A question with its options in columns."""
    return choices(row.cells["question"], row.get("hint"), row.options())


def _phrase(row: Row) -> str:
    return phrase(row.cells["question"])


def _yes_or_no(row: Row) -> str:
    return f"{row.cells['question']}\nPlease answer yes or no."


def _choice(row: Row) -> Scored:
    options = row.options()
    return Scored("choice", (row.letter(options),), options)


def _mmmu(row: Row) -> Scored:
    """An open question is scored like a choice between its answer and any other one: `MMMU_preproc`."""
    if row.has("A"):
        return _choice(row)
    answer = row.answer()
    letter = answer if answer in tuple(ascii_uppercase) else "A"
    return Scored("choice", (letter,), {**row.options(), "A": answer, "B": OTHER_ANSWERS})


def _mathvista(row: Row) -> Scored:
    """`post_check`; for answers that are texts or lists it knows no rule, and a judge is asked."""
    if row.get("question_type") == "multi_choice":
        options = row.listed("choices")
        return Scored("choice", (row.letter(options, "answer_option"),), options)
    rules: dict[str, Rule] = {"integer": "integer", "float": "float"}
    return Scored(rules.get(row.get("answer_type"), "judged"), (row.answer(),))


def _ocrbench(row: Row) -> Scored:
    return by("formula" if row.get("category") == FORMULAS else "contains")(row)


def _listed(row: Row) -> Mapping[str, str]:
    return row.listed("candidates")


def _video_mme(row: Row) -> Scored:
    options = _listed(row)
    return Scored("first letter", (row.letter(options),), options)


def _video_mme_question(row: Row) -> str:
    return f"{VIDEO_MME} Question: {_with_candidates(row)}\nAnswer:"


def _mvbench(row: Row) -> Scored:
    options, answer = _listed(row), row.cells["answer"]
    letters = [letter for letter, option in options.items() if option == answer]
    if not letters:
        raise RequestError(f"{row.name}: the answer {answer!r} is not one of its candidates")
    return Scored("mvbench", (letters[0],), options)


def _mvbench_question(row: Row) -> str:
    options = "\n".join(f"({letter}) {option}" for letter, option in _listed(row).items())
    return f"Question: {row.cells['question']}\nOptions:\n{options} Only give the best option. Best option:("


def _tempcompass(row: Row) -> Scored:
    options = _listed(row)
    captions = row.get("task_type") == "caption_matching"
    if captions and not all(": " in text for text in (*options.values(), row.answer())):
        raise RequestError(f"{row.name}: a caption to choose has a name, a colon and a text, as in 'Caption A: ...'")
    return Scored("caption" if captions else "lettered", (row.answer(),), options)


def _tempcompass_question(row: Row) -> str:
    return f"{_with_candidates(row)} Please directly give the best option:"


def _with_candidates(row: Row) -> str:
    return "\n".join([row.cells["question"], *_listed(row).values()])


VIDEO_MME = (
    "These are the frames of a video. Select the best answer to the following multiple-choice question based on the "
    "video. Respond with only the letter (A, B, C, or D) of the correct option."
)
CHOICE = DataSet(_choice, lettered_question)
MMMU = DataSet(_mmmu, lettered_question, kind="split")
ANLS = DataSet(by("anls"), _phrase)
SAME = DataSet(by("same"), _phrase)
YES_NO = DataSet(by("yes/no"))
DATA_SETS = {
    "MMStar": CHOICE,
    "SEEDBench_IMG": CHOICE,
    "AI2D_TEST": CHOICE,
    "AI2D_TEST_NO_MASK": CHOICE,
    "ScienceQA_VAL": CHOICE,
    "ScienceQA_TEST": CHOICE,
    "MMMU_DEV_VAL": MMMU,
    "MMMU_TEST": MMMU,
    "MathVista_MINI": DataSet(_mathvista, columns=("question_type", "answer_type", "choices", "answer_option")),
    "OCRBench": DataSet(_ocrbench, columns=("category",)),
    "ChartQA_TEST": DataSet(by("relaxed"), _phrase),
    "DocVQA_VAL": ANLS,
    "DocVQA_TEST": ANLS,
    "InfoVQA_VAL": ANLS,
    "InfoVQA_TEST": ANLS,
    "TextVQA_VAL": DataSet(by("vqa"), _phrase),
    "OCRVQA_TEST": SAME,
    "OCRVQA_TESTCORE": SAME,
    "GQA_TestDev_Balanced": SAME,
    "POPE": YES_NO,
    "MME": YES_NO,
    "HallusionBench": YES_NO,
    "AMBER": DataSet(by("yes/no"), _yes_or_no),
    "Video-MME": DataSet(_video_mme, _video_mme_question, "duration", ("candidates",), shows_videos=True),
    "MVBench": DataSet(_mvbench, _mvbench_question, "task_type", ("candidates",), shows_videos=True),
    "TempCompass_MCQ": DataSet(
        _tempcompass, _tempcompass_question, "dim", ("candidates", "task_type"), shows_videos=True
    ),
    "TempCompass_YorN": DataSet(
        by("begins"), lambda row: f"{row.cells['question']} Please answer yes or no:", "dim", shows_videos=True
    ),
}
