"""What is asked: one question with its pictures, its accepted answers and the rule that scores the reply."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.pictures.sources import ImageSource

Metric = Literal["literal", "exact", "choice", "anls", "relaxed", "yes/no"]
"""The rules of scores.py, under the names that --metric takes."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question with known answers."""

    index: str
    """Tells it from all others of its run."""
    name: str
    """What an error calls it."""
    kind: str
    """The line of the report that it counts in."""
    images: Callable[[], Sequence[ImageSource]]
    """Makes the pictures when they are needed: they are large, and a continued run skips most of them."""
    prompt: str
    answers: tuple[str, ...]
    """Any of them is right; of a multiple choice, the letter of the right option."""
    metric: Metric
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
    r"""How VLMEvalKit words a question for a benchmark of that kind, white space at the end left out.

    - `choice`: `ImageMCQDataset.build_prompt` (vlmeval/dataset/image_mcq.py at 9ede1af).
    - `yes/no`: `ImageYORNDataset.build_prompt` (vlmeval/dataset/image_yorn.py at 145bdaf): AMBER's questions get
      "Please answer yes or no.", MME's come with it. Here every question gets it that does not say so itself, POPE's
      too.
    - `anls`, `relaxed`: `ImageVQADataset.build_prompt` (vlmeval/dataset/image_vqa.py at 00b1c8d), which serves
      DocVQA, InfoVQA and ChartQA.
    - `exact`: the question alone, as `ImageBaseDataset.build_prompt` leaves it.
    """
    if metric == "choice":
        lines = [f"Hint: {hint}"] if hint else []
        lines += [f"Question: {question}", "Options:"]
        lines += [f"{letter}. {text}" for letter, text in (options or {}).items()]
        return "\n".join([*lines, "Please select the correct answer from the options above."])
    if metric == "yes/no" and "answer yes or no" not in question.lower():
        return f"{question}\nPlease answer yes or no."
    if metric in ("anls", "relaxed"):
        return f"{question}\nAnswer the question using a single word or phrase."
    return question
