"""A reply -> a score from 0 to 1, by the rules of VLMEvalKit (https://github.com/open-compass/VLMEvalKit).

What the rules are was read from ms-vlmeval 0.0.20, ModelScope's package of the kit, which pip installs; where a
docstring names a function, it is that package's. `tests/make_kit_goldens.py` runs those functions, oddities and all,
and the tests compare every verdict. No rule asks a second model for its opinion: a reply that none of them understands
is wrong, as it is there with `--judge exact_matching`.

- `texts`: the reply is a text, or has one in it
- `choosing`: the reply names one of some options
- `polar`: the reply says yes or no
- `figures`: the reply is a number
- `vqa`: the reply is what most people answered
"""

from collections.abc import Callable

from smolvlm_edge.evaluation.questions import Item, Rule
from smolvlm_edge.evaluation.scores import choosing, figures, polar, texts, vqa

RULES: dict[Rule, Callable[[str, Item], float]] = {
    "literal": texts.literal,
    "exact": texts.exact,
    "same": texts.same,
    "contains": texts.contains,
    "formula": texts.formula,
    "anls": texts.anls,
    "relaxed": figures.relaxed,
    "integer": figures.integer,
    "float": figures.decimal,
    "vqa": vqa.vqa,
    "choice": choosing.choice,
    "first letter": choosing.first_letter,
    "mvbench": choosing.first_word,
    "lettered": choosing.lettered,
    "caption": choosing.caption,
    "yes/no": polar.yes_no,
    "begins": polar.begins,
    "judged": lambda reply, item: 0.0,  # noqa: ARG005 - the kit asks a second model about it
}


def score(reply: str, item: Item) -> float:
    """The score of a reply by the item's own rule."""
    return RULES[item.metric](reply, item)
