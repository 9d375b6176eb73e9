"""The reply says yes or no."""

from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.scores.vqa import without_punctuation


def yes_no(reply: str, item: Item) -> float:
    """1 if the reply says yes, or no, as the answer does.

    `YOrN_Extraction` for POPE, MME, HallusionBench and AMBER: the reply says yes if `yes` is one of its words and `no`
    is not, and the other way round; a full stop or a comma does not belong to a word, a quotation mark does. The score
    is accuracy; POPE's F1, MME's accuracy+ and HallusionBench's accuracy by figure are other sums of it.
    """
    said = {"yes", "no"}.intersection(without_punctuation(reply.lower()).split())
    return float(said == {item.answers[0].lower()})


def begins(reply: str, item: Item) -> float:
    """1 if the reply begins with the answer, yes or no, whatever follows: `eval_rule_YorN` of TempCompass."""
    said = next((word for word in ("yes", "no") if reply.lower().startswith(word)), None)
    return float(said == item.answers[0])
