"""The reply names one of some options."""

import re
from collections.abc import Mapping

from smolvlm_edge.evaluation.questions import Item

NONE = "Z"
"""The kit's letter for "none of them"."""
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
"""What a reply contains that is counted as no choice, whatever else it says."""
LAST_WORDS = 4
"""A letter counts only among so many words at the end of a reply."""
INTRODUCTIONS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "Answer:",
    "Option:",
)
"""What `extract_characters_regex` of Video-MME takes out of a reply before it looks for a letter. It has more, but
lacks the commas between them, so that they are found nowhere."""


def choice(reply: str, item: Item) -> float:
    """1 if the reply chooses the right option: `can_infer`, for MMStar, AI2D, ScienceQA, SEED-Bench, MMMU, MathVista.

    If exactly one option's letter stands in the reply as a word of its own, that option is meant, provided that it is
    one of the last four words (so is the article in "A cat"). Otherwise it is the one option whose text is part of the
    reply, unless the reply is more than twice as long as all options together. Left out is MMBench's circular
    evaluation, which asks every question several times.
    """
    return float(chosen(reply, item.options) in item.answers)


def first_letter(reply: str, item: Item) -> float:
    """1 if the first capital A to D in the reply is the answer, be it in a word: `VideoMME.evaluate`."""
    for introduction in INTRODUCTIONS:
        reply = reply.replace(introduction, "")
    found = re.search("[ABCD]", reply)
    return float(found is not None and found[0] in item.answers)


def first_word(reply: str, item: Item) -> float:
    """1 if the first word is the right option's letter, with its brackets or a part of them, or if `choice` says so.

    `check_ans_with_model` of MVBench, whose comparison goes both ways: an empty reply is part of every letter, and
    right.
    """
    bracketed = f"({item.answers[0].lower()})"
    word = reply.lower().strip().split(" ")[0]
    return float(word.replace(".", "") in bracketed or bracketed in word or choice(reply, item))


def lettered(reply: str, item: Item) -> float:
    """1 if the reply begins with the answer's letter: `eval_rule_multi_choice` of TempCompass.

    The letter stands alone or has a full stop or bracket after it; else the reply must be the whole answer.
    """
    letter = re.match(r"([ABCD])(?:[.)]|\Z)", reply)
    return float(reply == item.answers[0] or (letter is not None and letter[1] == item.answers[0][:1]))


def caption(reply: str, item: Item) -> float:
    """1 if the reply is the right one of captions such as "Caption A: ...": `eval_rule_caption_matching`, TempCompass.

    It may be the whole of it, its text, its name, or its letter or number, as far as an option has such.
    """
    names = [option.split(": ")[0] for option in item.options.values()]
    texts = [option.split(": ")[1] for option in item.options.values()]
    letters = [re.sub("Sentence |Option |Caption ", "", name) for name in names]
    said = None
    for option in item.options.values():
        said = option if reply == option else said
    after_bracket = reply.split(") ")[1] if ") " in reply else reply
    for text in texts:
        said = text if text in (reply, after_bracket) else said
    for name in (*names, *letters):
        said = name if name in (reply, reply.replace(".", "")) else said
    name, text = item.answers[0].split(": ")[:2]
    return float(said in {item.answers[0], name, text, item.answers[0].split(":")[0], *name.split()[1:2]})


def chosen(reply: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that a reply chooses, or NONE, or None if it chooses nothing that can be told."""
    if any(refusal in reply for refusal in REFUSALS):
        return NONE
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) >= len(words) - LAST_WORDS:
        return letters[0]
    if not letters and NONE in words:
        return NONE
    reply = reply.lower()
    if len(reply) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in reply]
    return found[0] if len(found) == 1 else None
