r"""How the publishers of SmolVLM word the questions of a data set, which their published scores rest on.

After the classes `SmolVLM` and `SmolVLM2` of VLMEvalKit (vlmeval/vlm/smolvlm.py of ms-vlmeval 0.0.20): they take the
kit's own wording, replace parts of it, and for multiple choice begin the answer with ` Answer:`. Their prompts are
those of the family's chat template for one turn. A data set goes by its file's name, as in the kit.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.errors import RequestError

Prompts = Literal["plain", "family"]
"""What `--prompts` takes."""

Message = tuple[str | int, ...]
"""Texts, and the numbers of pictures, from 0, where they stand."""

MMMU = frozenset({"MMMU_DEV_VAL", "MMMU_TEST"})
PUREMCQ = frozenset({"MMStar", "SEEDBench_IMG", "AI2D_TEST", "ScienceQA_VAL", "ScienceQA_TEST"})
BRIEF = frozenset({"MME", "MMVet", "OCRVQA_TEST", "OCRVQA_TESTCORE", "InfoVQA_VAL", "InfoVQA_TEST", "OCRBench"})
MMBENCH = re.compile(r"MMBench(_(DEV|TEST))?(_(EN|CN))?(_V11)?|CCBench")
MOST_FRAMES = 64
ANSWER = "Answer:"
KIT_CHOICE = "Please select the correct answer from the options above."
MATHVISTA = {f"({letter}) ": f"{letter}. " for letter in "ABCDEFGH"} | {"\nOptions:": "\nChoices:", "Hint: ": ""}
WATCH = "pay attention to the video and answer the question"
MVBENCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)
TO_CHOICES = {"Options:": "Choices:", KIT_CHOICE: "Answer with the letter."}
VIDEOS = {
    "Video-MME": TO_CHOICES,
    "TempCompass_MCQ": TO_CHOICES,
    "TempCompass_YorN": {},
    "MVBench": {
        "Options:": "respond ONLY with one of the multiple choice letter options (A/B/C/D):",
        "Best option:(": "Answer:",
    },
}
"""What is replaced in questions about videos, where they list options."""
INSTRUCTIONS = {
    "ChartQA": (
        "For the question below, follow the following instructions:\n"
        "-The answer should contain as few words as possible.\n"
        "-Don’t paraphrase or reformat the text you see in the image.\n"
        "-Answer a binary question with Yes or No.\n"
        "-When asked to give a numerical value, provide a number like 2 instead of Two.\n"
        "-If the final answer has two or more items, provide it in the list format like [1, 2].\n"
        "-When asked to give a ratio, give out the decimal value like 0.25 instead of 1:4.\n"
        "-When asked to give a percentage, give out the whole value like 17 instead of decimal like 0.17%.\n"
        "-Don’t include any units in the answer.\n"
        "-Do not include any full stops at the end of the answer.\n"
        "-Try to include the full label from the graph when asked about an entity.\n"
        "Question: "
    ),
    "DocVQA": (
        "Give a short and terse answer to the following question. "
        "Do not paraphrase or reformat the text you see in the image. Do not include any full stops. "
        "Just give the answer without additional explanation. Question: "
    ),
    "TextVQA": (
        "Answer the following question about the image using as few words as possible. "
        "Follow these additional instructions:\n"
        "-Always answer a binary question with Yes or No.\n"
        "-When asked what time it is, reply with the time seen in the image.\n"
        "-Do not put any full stops at the end of the answer.\n"
        "-Do not put quotation marks around the answer.\n"
        "-An answer with one or two words is favorable.\n"
        "-Do not apply common sense knowledge. The answer can be found in the image.\n"
        "Question: "
    ),
}
"""What stands before the questions of a data set of texts, by its name without `_VAL` or `_TEST`."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A question as it is put to the model."""

    parts: Message
    prefill: str = ""
    """What the answer is made to begin with."""
    system: str = ""
    """What the system says first."""

    def messages(self, images: Sequence[Source]) -> list[dict[str, Any]]:
        """As `SmolVLM.generate` takes them.

        Raises:
            RequestError: The text names a picture that there is not.
        """
        if lacking := [part + 1 for part in self.parts if isinstance(part, int) and part >= len(images)]:
            raise RequestError(f"it speaks of <image {lacking[0]}>, and there are {len(images)} pictures")
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": images[part]}
            for part in self.parts
        ]
        told = [{"role": "system", "content": self.system}] if self.system else []
        begun = [{"role": "assistant", "content": self.prefill}] if self.prefill else []
        return [*told, {"role": "user", "content": content}, *begun]


def message(dataset: str, prompt: str, pictures: int) -> Message:
    """The question as the data set has it: the pictures first, MMMU's where its text says `<image 1>`."""
    if dataset not in MMMU or "<image " not in prompt:
        return (*range(pictures), prompt)
    pieces = re.split(r"<image (\d)>", prompt)
    return tuple(int(piece) - 1 if at % 2 else piece for at, piece in enumerate(pieces))


def plain(dataset: str, prompt: str, pictures: int) -> Wording:
    """The question as the data set has it."""
    return Wording(tuple(part for part in message(dataset, prompt, pictures) if part != ""))


def family(dataset: str, prompt: str, pictures: int, *, second: bool = False) -> Wording:
    """The question as the publishers put it."""
    return word(dataset, message(dataset, prompt, pictures), second=second)


def word(dataset: str, message: Message, *, second: bool = False) -> Wording:
    """The family's wording of a question.

    Args:
        dataset: The name of the file, without its ending.
        message: The kit's wording.
        second: Whether SmolVLM2 is asked: its class has plain apostrophes where the other has typographic ones.
    """
    if own := OWN.get(dataset):
        return own(message)
    if dataset in VIDEOS:
        return _video(dataset, message)
    if MMBENCH.fullmatch(dataset):
        change = _choices("a letter")
        return _pictures_first(message, lambda text: _hint_after_question(_replaced(text, change)), prefill=ANSWER)
    if instructions := INSTRUCTIONS.get(re.sub("_(VAL|TEST)$", "", dataset)):
        return _pictures_first(message, before=instructions.replace("’", "'") if second else instructions)
    return Wording(_joined([*_changed(message), _ending(dataset)]))


def frames(dataset: str, message: Message) -> Wording:
    """A question about a video whose frames, one a second, are the pictures: the kit's words for SmolVLM2.

    The kit writes them around the chat template: a space more stands before every line there.
    """
    shown = [part for part in message if isinstance(part, int)]
    if len(shown) > MOST_FRAMES:
        shown = [shown[at * (len(shown) - 1) // (MOST_FRAMES - 1)] for at in range(MOST_FRAMES)]
    listed = [part for at in shown for part in (f" Frame from {at // 60:02}:{at % 60:02}: ", at)]
    texts = tuple(part for part in message if isinstance(part, str) and part.strip() != MVBENCH)
    wording = _video(dataset, texts)
    return Wording(
        _joined(["Here are some frames sampled from a video:\n", *listed, " \n ", *wording.parts]),
        system=wording.system,
    )


def _ending(dataset: str) -> str:
    if dataset in BRIEF:
        return "\nGive a very brief answer."
    return "\nAnswer yes or no." if dataset == "HallusionBench" else ""


def _video(dataset: str, message: Message) -> Wording:
    """What the system says to MVBench comes with its questions in the kit, and from here in `eval`."""
    text = " ".join(part.strip() for part in message if isinstance(part, str))
    text = _replaced(text, VIDEOS[dataset]) if "Options:" in text else text
    pictures = (part for part in message if isinstance(part, int))
    return Wording((*pictures, text), system=MVBENCH if dataset == "MVBench" else WATCH)


def _choice(message: Message) -> Wording:
    return Wording(_changed(message, lambda text: _replaced(text, _choices("the letter"))), ANSWER)


def _mathvista(message: Message) -> Wording:
    wording = _pictures_first(message, lambda text: _replaced(text, MATHVISTA).strip())
    return Wording(wording.parts, _answer_if_choices(wording.parts))


def _mmmu(message: Message) -> Wording:
    """All pictures first, numbered; then each once more, by its number, where it stands in the question."""
    shown = [part for part in message if isinstance(part, int)]
    listed = [piece for number, part in enumerate(shown, 1) for piece in (f"<image {number}>:", part, "\n")]
    numbers = count(1)
    change = {"Question:": "", **_choices("the letter")}
    texts = [
        _replaced(part.strip(), change).strip() if isinstance(part, str) else f" <image {next(numbers)}> "
        for part in message
    ]
    parts = _joined(["Question: ", *listed, *texts])
    return Wording(parts, _answer_if_choices(parts))


def _changed(message: Message, change: Callable[[str], str] = str) -> Message:
    return tuple(change(part.strip()) if isinstance(part, str) else part for part in message)


def _pictures_first(
    message: Message, change: Callable[[str], str] = str, before: str = "", prefill: str = ""
) -> Wording:
    pictures = [part for part in message if isinstance(part, int)]
    texts = [part for part in _changed(message, change) if isinstance(part, str)]
    return Wording(_joined([*pictures, before, *texts]), prefill)


def _joined(parts: Iterable[str | int]) -> Message:
    """Neighbouring texts as one."""
    joined: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(before := joined[-1], str):
            joined[-1] = before + part
        elif part != "":
            joined.append(part)
    return tuple(joined)


def _choices(what: str) -> Mapping[str, str]:
    return {"\nOptions:": "\nChoices:", KIT_CHOICE: f"Answer with {what}."}


def _replaced(text: str, by: Mapping[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(old, new)
    return text


def _hint_after_question(text: str) -> str:
    match = re.fullmatch(r"(Hint:.*?)\nQuestion:(.*?)\nChoices:(.*)", text, re.DOTALL)
    return f"Question:{match[2]}\n{match[1]}\nChoices:{match[3]}" if match else text


def _answer_if_choices(parts: Message) -> str:
    text = "".join(part for part in parts if isinstance(part, str))
    return ANSWER if "A." in text and "B." in text else ""


OWN: Mapping[str, Callable[[Message], Wording]] = {
    **dict.fromkeys(MMMU, _mmmu),
    **dict.fromkeys(PUREMCQ, _choice),
    "MathVista_MINI": _mathvista,
}
"""Data sets with a wording of their own."""
