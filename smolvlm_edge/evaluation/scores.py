"""A reply -> a score from 0 to 1, by the rules that the benchmarks published.

No rule asks a second model for its opinion: a reply that none of them understands is wrong, as it is in VLMEvalKit
(https://github.com/open-compass/VLMEvalKit) with `--judge exact_matching`.
"""

import re
from collections.abc import Callable, Mapping

from smolvlm_edge.evaluation.questions import Item, Metric

ANLS_THRESHOLD = 0.5
RELATIVE_CHANGE = 0.05


def score(reply: str, item: Item) -> float:
    """The score of a reply by the item's own metric."""
    return RULES[item.metric](reply, item)


def literal(reply: str, item: Item) -> float:
    """1 if the reply is one of the answers to the letter; only white space at the ends does not count."""
    return float(reply.strip() in item.answers)


def exact(reply: str, item: Item) -> float:
    """1 if the reply is one of the answers; white space, case and punctuation at the end do not count.

    VLMEvalKit's `accuracy` (vlmeval/dataset/utils/vqa_eval.py at 0a04a1d; GQA, OCR-VQA), which minds white space inside
    and punctuation at the end.
    """
    return float(_plain(reply) in map(_plain, item.answers))


def choice(reply: str, item: Item) -> float:
    """1 if the reply chooses the right option.

    The rule is `can_infer` of VLMEvalKit (vlmeval/utils/matching_util.py at 18fc37a), which SEED-Bench, AI2D, MMStar
    and ScienceQA are scored by: if exactly one option's letter stands in the reply as a word of its own (so does the
    article in "A cat"), that option is meant; otherwise the one option whose text is part of the reply. Left out: its
    list of refusals of commercial models, and MMBench's circular evaluation, which asks every question several times.
    """
    return float(_chosen(reply, item.options) in item.answers)


def anls(reply: str, item: Item) -> float:
    """Average normalised Levenshtein similarity, of the best of the answers; 0 below a similarity of 0.5.

    Biten et al. 2019, "Scene Text Visual Question Answering", arXiv:1905.13648; DocVQA and InfographicVQA. Case and
    runs of white space do not count, and a similarity of exactly 0.5 does, as in the evaluation script of the DocVQA
    server and in VLMEvalKit (`anls_compute` and `hit_calculate`, vlmeval/dataset/utils/vqa_eval.py at 0a04a1d).
    """
    best = max(_similarity(_lower(reply), _lower(answer)) for answer in item.answers)
    return best if best >= ANLS_THRESHOLD else 0.0


def relaxed(reply: str, item: Item) -> float:
    """Relaxed accuracy: a number may be 5 % off, anything else must be the same text but for case.

    Masry et al. 2022, "ChartQA", arXiv:2203.10244, section 5.1, after `relaxed_correctness` of pix2struct, which
    VLMEvalKit (vlmeval/dataset/utils/vqa_eval.py at 0a04a1d) and lmms-eval (lmms_eval/tasks/chartqa/utils.py) took
    over: "12%" is the number 0.12, and an answer of 0 must be met as a text.
    """
    return float(any(_relaxed(reply.strip(), answer.strip()) for answer in item.answers))


def yes_no(reply: str, item: Item) -> float:
    """1 if the reply says yes, or no, as the answer does.

    `YOrN_Extraction` of VLMEvalKit (vlmeval/dataset/utils/yorn.py at 0c7163c; POPE, MME, HallusionBench): the reply
    says yes if `yes` is one of its words and `no` is not, and the other way round. The score is accuracy; POPE's F1
    and MME's accuracy+ are other sums of it.
    """
    said = {"yes", "no"}.intersection(re.findall(r"\w+", reply.lower()))
    return float(said == {item.answers[0].lower()})


RULES: dict[Metric, Callable[[str, Item], float]] = {
    "literal": literal,
    "exact": exact,
    "choice": choice,
    "anls": anls,
    "relaxed": relaxed,
    "yes/no": yes_no,
}


def levenshtein(one: str, other: str) -> int:
    """The fewest characters to insert, delete or replace that turn one text into the other."""
    row = list(range(len(other) + 1))
    for i, character in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            replaced = diagonal + (character != wanted)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _plain(text: str) -> str:
    return _lower(text).rstrip(".,;:!? ")


def _lower(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    return 1 - levenshtein(one, other) / longest if longest else 1.0


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


def _chosen(reply: str, options: Mapping[str, str]) -> str | None:
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1:
        return letters[0]
    if not letters and "Z" in words:  # VLMEvalKit's letter for "none of them"
        return None
    found = [letter for letter, text in options.items() if text.lower() in reply.lower()]
    return found[0] if len(found) == 1 else None
