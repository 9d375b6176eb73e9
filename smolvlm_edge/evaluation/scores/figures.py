"""The reply is a number."""

from collections.abc import Callable

from smolvlm_edge.evaluation.questions import Item

RELATIVE_CHANGE = 0.05


def relaxed(reply: str, item: Item) -> float:
    """Relaxed accuracy: a number may be 5 % off, anything else must be the same text but for case.

    Masry et al. 2022, "ChartQA", arXiv:2203.10244, section 5.1; `relaxed_correctness`, which the kit has from
    pix2struct: "12%" is the number 0.12, and an answer of 0 must be met as a text.
    """
    return float(any(_relaxed(reply.strip(), answer) for answer in item.answers))


def integer(reply: str, item: Item) -> float:
    """1 if the reply is nothing but the whole number that was asked for: `post_check` of MathVista.

    What comes in words there goes to a judge. A zero does, too: the number it finds counts as nothing found.
    """
    return _equal(int, reply, item)


def decimal(reply: str, item: Item) -> float:
    """The same for decimal numbers."""
    return _equal(float, reply, item)


def _equal(number: Callable[[str], float], reply: str, item: Item) -> float:
    try:
        said = number(reply)
        return float(said != 0 and said == number(item.answers[0]))
    except ValueError:
        return 0.0


def _relaxed(reply: str, answer: str) -> bool:
    said, wanted = _number(reply), _number(answer)
    if said is None or not wanted:
        return reply.lower() == answer.lower()
    return abs(said - wanted) / abs(wanted) <= RELATIVE_CHANGE


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
