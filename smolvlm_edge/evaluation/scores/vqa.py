"""The reply is what most people answered."""

import re
from statistics import fmean

from smolvlm_edge.evaluation.questions import Item

MARKS = ';/[]"{}()=+\\_-><@`,?!'
MOST_STOPS = 32
"""Full stops that are taken out: the kit hands `re.UNICODE`, which is 32, to `re.sub` in the place of a count."""
ARTICLES = frozenset({"a", "an", "the"})
ENOUGH = 3
"""So many people must agree."""
NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
} | {"none": "0"}
SPELLED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905 - a list of quoted words with apostrophes is no easier to read
"""Words whose apostrophe may be missing, one of them where there are several."""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word for word in SPELLED for place, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


def vqa(reply: str, item: Item) -> float:
    """The accuracy of VQA: 1 if at least three people gave the reply, less if fewer did.

    Antol et al. 2015, "VQA", arXiv:1505.00468; `process_line` with `vqa_score` for TextVQA: the mean over every person,
    who is compared with all the others, so that of an answer that one person gave nobody is right. Replies and answers
    lose punctuation and articles, numbers up to ten become digits, and apostrophes are put in.
    """
    said, answers = normal(reply), [normal(answer) for answer in item.answers]
    agreeing = answers.count(said)
    return fmean(min(1.0, (agreeing - (answer == said)) / ENOUGH) for answer in answers)


def normal(text: str) -> str:
    """The form in which texts are compared."""
    text = without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(text: str) -> str:
    """Marks between words go, and so do all marks of a text that has a comma in a number; others become spaces.

    `process_punctuation`, after the evaluation code of VQA. Full stops stay only beside digits.
    """
    comma_in_number = re.search(r"\d,\d", text) is not None
    goes = {mark: comma_in_number or f"{mark} " in text or f" {mark}" in text for mark in MARKS}
    text = text.translate({ord(mark): "" if gone else " " for mark, gone in goes.items()})
    return re.sub(r"(?<!\d)\.(?!\d)", "", text, count=MOST_STOPS)
