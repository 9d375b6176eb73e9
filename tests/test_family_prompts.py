"""The family's wording of data sets.

Expected prompts were written down from VLMEvalKit's class `SmolVLM` (vlmeval/vlm/smolvlm.py at 0140ace): what it
puts between `<|im_start|>User:` and `<end_of_utterance>`, and what it begins the answer with.
"""

import json
from base64 import b64encode
from pathlib import Path

import pytest
from command import assert_fails, smol_edge

from smolvlm_edge.evaluation.family import family, frames
from smolvlm_edge.evaluation.questions import prompt

EXAMPLES = Path(__file__).parent.parent / "examples"
OPTIONS = {"A": "one", "B": "two"}
CHOICE = prompt("choice", "How many?", "", OPTIONS)
HINTED = prompt("choice", "How many?", "Count.", OPTIONS)


def rendered(dataset: str, plain: str, pictures: int = 1) -> str:
    """As the family's template puts a turn: a space before a text that comes first, none before a picture."""
    wording = family(dataset, plain, pictures)
    first = "" if isinstance(wording.parts[0], int) else " "
    turn = first + "".join("<image>" if isinstance(part, int) else part for part in wording.parts)
    return f"User:{turn}<end_of_utterance>\nAssistant:" + (f" {wording.prefill}" if wording.prefill else "")


@pytest.mark.parametrize("dataset", ["MMStar", "SEEDBench_IMG", "AI2D_TEST", "ScienceQA_VAL", "ScienceQA_TEST"])
def test_plain_multiple_choice(dataset: str) -> None:
    assert rendered(dataset, HINTED) == (
        "User:<image>Hint: Count.\nQuestion: How many?\nChoices:\nA. one\nB. two\nAnswer with the letter."
        "<end_of_utterance>\nAssistant: Answer:"
    )


@pytest.mark.parametrize("dataset", ["MMBench_DEV_EN", "MMBench_TEST_CN_V11", "MMBench", "CCBench"])
def test_mmbench_puts_the_hint_after_the_question(dataset: str) -> None:
    assert rendered(dataset, HINTED) == (
        "User:<image>Question: How many?\nHint: Count.\nChoices:\nA. one\nB. two\nAnswer with a letter."
        "<end_of_utterance>\nAssistant: Answer:"
    )


def test_mmmu_lists_its_pictures() -> None:
    assert rendered("MMMU_DEV_VAL", CHOICE, pictures=2) == (
        "User: Question: <image 1>:<image>\n<image 2>:<image>\n <image 1>  <image 2> How many?"
        "\nChoices:\nA. one\nB. two\nAnswer with the letter.<end_of_utterance>\nAssistant: Answer:"
    )
    within = "Question: Is <image 2> left of <image 1>?"  # the kit counts places, whatever the numbers are
    assert rendered("MMMU_DEV_VAL", within, pictures=2) == (
        "User: Question: <image 1>:<image>\n<image 2>:<image>\nIs <image 1> left of <image 2> ?"
        "<end_of_utterance>\nAssistant:"
    )
    assert family("MMMU_DEV_VAL", within, 2).parts == (
        *("Question: <image 1>:", 1, "\n<image 2>:", 0),
        "\nIs <image 1> left of <image 2> ?",
    )
    assert rendered("MMMU_DEV_VAL", "Name it.") == (
        "User: Question: <image 1>:<image>\n <image 1> Name it.<end_of_utterance>\nAssistant:"
    )


def test_mathvista() -> None:
    plain = "Hint: Give the letter.\nQuestion: How many?\nChoices:\n(A) one\n(B) two"
    assert rendered("MathVista_MINI", plain) == (
        "User:<image>Give the letter.\nQuestion: How many?\nChoices:\nA. one\nB. two"
        "<end_of_utterance>\nAssistant: Answer:"
    )
    assert rendered("MathVista_MINI", "Hint: A number.\nQuestion: How many?").endswith("<end_of_utterance>\nAssistant:")


@pytest.mark.parametrize(
    ("dataset", "begin", "end"),
    [
        (
            "ChartQA_TEST",
            "User:<image>For the question below, follow the",
            "when asked about an entity.\n",
        ),
        (
            "DocVQA_VAL",
            "User:<image>Give a short and terse answer",
            "without additional explanation. ",
        ),
        ("TextVQA_VAL", "User:<image>Answer the following question about", "can be found in the image.\n"),
    ],
)
def test_texts_come_after_instructions(dataset: str, begin: str, end: str) -> None:
    said = rendered(dataset, "How many?")
    assert said.startswith(begin)
    assert said.endswith(f"{end}Question: How many?<end_of_utterance>\nAssistant:")


@pytest.mark.parametrize("dataset", ["MME", "MMVet", "OCRBench", "InfoVQA_VAL", "OCRVQA_TESTCORE"])
def test_brief_answers(dataset: str) -> None:
    assert rendered(dataset, "How many? ") == (
        "User:<image>How many?\nGive a very brief answer.<end_of_utterance>\nAssistant:"
    )


def test_others() -> None:
    assert rendered("HallusionBench", "Is it?") == "User:<image>Is it?\nAnswer yes or no.<end_of_utterance>\nAssistant:"
    assert rendered("my-own", "Is it?") == "User:<image>Is it?<end_of_utterance>\nAssistant:"


def test_frames_of_a_video_are_announced_in_the_words_of_the_kit() -> None:
    """What the class `SmolVLM2` makes of the kit's message, but for the spaces with which it joins its pieces."""
    message = ("", *range(70), "\nThese are frames.\n", "Question: Who?\nA. x\nB. y\nAnswer: ")
    wording = frames("Video-MME", message)
    assert wording.system == "pay attention to the video and answer the question"
    first, *shown, last = wording.parts
    assert first == "Here are some frames sampled from a video:\n Frame from 00:00: "
    assert last == " \n  These are frames. Question: Who?\nA. x\nB. y\nAnswer:"
    assert [part for part in shown if isinstance(part, int)][:3] == [0, 1, 2]
    assert len([part for part in shown if isinstance(part, int)]) == 64
    assert shown[-2:] == [" Frame from 01:09: ", 69]
    asked = frames(
        "MVBench", ("Watch.", 0, "Question: Who?\nOptions:\n(A) x", "\nOnly give the best option.", "Best option:(")
    )
    assert asked.parts[-1].endswith("letter options (A/B/C/D):\n(A) x Only give the best option. Answer:")


def test_eval_asks_a_file_in_the_words_of_its_name(tmp_path: Path) -> None:
    """The model sees the whole prompt, the beginning of its answer included."""
    path = tmp_path / "MMStar.tsv"
    picture = b64encode((EXAMPLES / "shapes.png").read_bytes()).decode()
    path.write_text(f"index\timage\tquestion\tA\tB\tanswer\n1\t{picture}\tHow many?\tone\ttwo\tA\n", encoding="utf-8")
    seen = "from smolvlm_edge.conversation.prompt import PromptEncoder as E; encode = E.encode\n"
    told = "print(turns, file=sys.stderr)"
    seen += f"E.encode = lambda self, turns, *rest, **more: ({told}, encode(self, turns, *rest, **more))[1]\n"
    result = smol_edge("eval", path, "--prompts", "family", "--json", patch=seen)
    assert result.returncode == 0, result.stderr
    assert "Answer with the letter." in result.stderr
    assert "'role': 'assistant'" in result.stderr
    assert json.loads(result.stdout)["questions"] == 1
    assert_fails(smol_edge("eval", "--prompts", "family"), 2, "--prompts goes with a file")
