r"""How the publishers of SmolVLM word the questions of a data set, which their published scores rest on.

After the class `SmolVLM` of VLMEvalKit (vlmeval/vlm/smolvlm.py at 0140ace): it takes the kit's own wording, replaces
parts of it, and for multiple choice begins the answer with ` Answer:`. Its prompts are those of the family's chat
template for one turn. A data set goes by its file's name, as in the kit.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from smolvlm_edge.pictures.sources import ImageSource

Prompts = Literal["plain", "family"]
"""What `--prompts` takes."""

PUREMCQ = frozenset({"MMStar", "SEEDBench_IMG", "AI2D_TEST", "ScienceQA_VAL", "ScienceQA_TEST"})
BRIEF = frozenset({"MME", "MMVet", "OCRVQA_TEST", "OCRVQA_TESTCORE", "InfoVQA_VAL", "InfoVQA_TEST", "OCRBench"})
MMBENCH = re.compile(r"MMBench(_(DEV|TEST))?(_(EN|CN))?(_V11)?|CCBench")
ANSWER = "Answer:"
KIT_CHOICE = "Please select the correct answer from the options above."
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

    parts: tuple[str | None, ...]
    """Texts, and None in the place of each picture."""
    prefill: str = ""
    """What the answer is made to begin with."""

    def messages(self, images: Sequence[ImageSource]) -> list[dict[str, Any]]:
        """As `SmolVLM.generate` takes them."""
        pictures = iter(images)
        content = [
            {"type": "image", "image": next(pictures)} if part is None else {"type": "text", "text": part}
            for part in self.parts
        ]
        begun = [{"role": "assistant", "content": self.prefill}] if self.prefill else []
        return [{"role": "user", "content": content}, *begun]

    @classmethod
    def after_pictures(cls, pictures: int, text: str, prefill: str = "") -> Self:
        """The usual order."""
        return cls((*[None] * pictures, text), prefill)


def plain(prompt: str, pictures: int) -> Wording:
    """The question as the data set has it."""
    return Wording.after_pictures(pictures, prompt)


def word(dataset: str, prompt: str, pictures: int) -> Wording:
    """The family's wording of a question.

    Args:
        dataset: The name of the file, without its ending.
        prompt: The kit's wording; see `questions.prompt`.
        pictures: How many there are.
    """
    prompt = prompt.strip()
    if dataset in {"MMMU_DEV_VAL", "MMMU_TEST"}:
        return _mmmu(prompt, pictures)
    text, prefill = prompt, ""
    if MMBENCH.fullmatch(dataset):
        text, prefill = _hint_after_question(_replaced(prompt, _choices("a letter"))), ANSWER
    elif dataset in PUREMCQ:
        text, prefill = _replaced(prompt, _choices("the letter")), ANSWER
    elif dataset == "MathVista_MINI":
        letters = {f"({letter}) ": f"{letter}. " for letter in "ABCDEFGH"}
        text = _replaced(prompt, {**letters, "\nOptions:": "\nChoices:", "Hint: ": ""}).strip()
        prefill = _answer_if_choices(text)
    elif dataset in BRIEF:
        text = f"{prompt}\nGive a very brief answer."
    elif dataset == "HallusionBench":
        text = f"{prompt}\nAnswer yes or no."
    else:
        text = INSTRUCTIONS.get(re.sub("_(VAL|TEST)$", "", dataset), "") + prompt
    return Wording.after_pictures(pictures, text, prefill)


def _mmmu(prompt: str, pictures: int) -> Wording:
    text = _replaced(prompt, {"Question:": "", **_choices("the letter")}).strip()
    numbers = range(1, pictures + 1)
    listed = [part for number in numbers for part in (f"<image {number}>:", None, "\n")]
    text = "".join(f" <image {number}> " for number in numbers) + text
    return Wording(("Question: ", *listed, text), _answer_if_choices(text))


def _choices(what: str) -> Mapping[str, str]:
    return {"\nOptions:": "\nChoices:", KIT_CHOICE: f"Answer with {what}."}


def _replaced(text: str, by: Mapping[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(old, new)
    return text


def _hint_after_question(text: str) -> str:
    match = re.fullmatch(r"(Hint:.*?)\nQuestion:(.*?)\nChoices:(.*)", text, re.DOTALL)
    return f"Question:{match[2]}\n{match[1]}\nChoices:{match[3]}" if match else text


def _answer_if_choices(text: str) -> str:
    return ANSWER if "A." in text and "B." in text else ""
