"""What is asked: one question with its pictures, its accepted answers and the rule that scores the reply."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.pictures.images import Detail

Metric = Literal["literal", "exact", "choice", "anls", "relaxed", "yes/no", "vqa", "contains"]
"""The rules of `scores` that --metric takes."""
Rule = (
    Metric
    | Literal[
        "same", "formula", "integer", "float", "judged", "begins", "first letter", "mvbench", "lettered", "caption"
    ]
)
"""All of them; the others serve one data set each."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question with known answers."""

    index: str
    """Tells it from all others of its run."""
    name: str
    """What an error calls it."""
    kind: str
    """The line of the report that it counts in."""
    images: Callable[[], Sequence[Source]]
    """Makes the pictures, or videos, when they are needed: they are large, and a continued run skips most of them."""
    prompt: str
    answers: tuple[str, ...]
    """Any of them is right; of a multiple choice, the letter of the right option."""
    metric: Rule
    detail: Detail = "high"
    """As `SmolVLM.generate` takes it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text, of a multiple choice."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What a run asks."""

    items: Iterator[Item]
    """May hold more than `count`."""
    count: int
    fingerprint: str
    """Differs for other questions, whatever the count."""


def prompt(metric: Metric, question: str, hint: str = "", options: Mapping[str, str] | None = None) -> str:
    """How VLMEvalKit words a question of that kind, white space at the end left out.

    What each data set gets, `datasets` says. Here, for files of one's own, every question that is scored by yes or no
    asks for it if it does not do so itself.
    """
    if metric == "choice":
        return choices(question, hint, options or {})
    if metric == "yes/no" and "answer yes or no" not in question.lower():
        return f"{question}\nPlease answer yes or no."
    if metric in ("anls", "relaxed", "vqa"):
        return phrase(question)
    return question


def choices(question: str, hint: str, options: Mapping[str, str]) -> str:
    """`ImageMCQDataset.build_prompt` (vlmeval/dataset/image_mcq.py); without options it is an open question."""
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {question}")
    if options:
        lines += ["Options:", *(f"{letter}. {text}" for letter, text in options.items())]
        lines.append("Please select the correct answer from the options above.")
    return "\n".join(lines)


def phrase(question: str) -> str:
    """`ImageVQADataset.build_prompt` (vlmeval/dataset/image_vqa.py)."""
    return f"{question}\nAnswer the question using a single word or phrase."
