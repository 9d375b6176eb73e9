"""Scenes to read: words, numbers and random strings."""

import string
from functools import cache
from importlib.resources import files
from random import Random
from zlib import crc32

from smolvlm_edge.demo.scenes import wording
from smolvlm_edge.demo.scenes.drawing import FONTS, cap_height, text_width
from smolvlm_edge.demo.scenes.palette import shade, visible_on
from smolvlm_edge.demo.scenes.paper import blank
from smolvlm_edge.demo.scenes.scene import HELD_OUT_SHARE, Question, Scene, Sketch, Text
from smolvlm_edge.demo.scenes.wording import ask

CODE_CHARACTERS = "".join(sorted(set(string.ascii_uppercase + string.digits) - set("O0I1")))
"""Random strings leave out what looks alike, as codes meant for people do."""
SMALL = (8.0, 11.5)
"""Units of capital height that can be read in the tiles but not in the whole picture squashed to one."""
LARGE = (14.0, 40.0)
MARGIN = 5.0


def word(random: Random, *, held_out: bool) -> str:
    """An English word of two to six letters from one side of the division, in small or capital letters."""
    chosen = random.choice(_words(held_out))
    return chosen.upper() if random.random() < 0.6 else chosen


def code(random: Random) -> str:
    """Two to six random capitals and digits."""
    return "".join(random.choices(CODE_CHARACTERS, k=random.randint(2, 6)))


def number(random: Random) -> str:
    """A number of one to four digits."""
    return str(random.randrange(10 ** random.randint(1, 4)))


def any_string(random: Random, *, held_out: bool) -> str:
    """Something to read."""
    kind = random.random()
    return word(random, held_out=held_out) if kind < 0.45 else code(random) if kind < 0.8 else number(random)


def place_text(random: Random, sketch: Sketch, text: str, colour: str, row: int, cap: tuple[float, float]) -> Text:
    """The text somewhere in a third of the picture (row 0, 1 or 2), its capitals as high as said, if they fit."""
    width, height = sketch.units
    font = random.randrange(len(FONTS))
    band = height / 3
    size = random.uniform(*cap) / cap_height(font)
    size = min(size, (width - 2 * MARGIN) / text_width(text, font, 1.0), band / 1.3)
    x = random.uniform(MARGIN, width - MARGIN - text_width(text, font, size))
    slack = band - size
    y = row * band + random.uniform(0.4, 0.6) * slack + 0.8 * size
    return Text(text, colour, shade(random, colour), round(x, 1), round(y, 1), font, round(size, 2))


def reading(random: Random, *, held_out: bool) -> Scene:
    """One to three texts below each other; whether they are small is decided for all of them."""
    sketch = blank(random)
    count = random.choice((1, 1, 2, 3))
    rows = sorted(random.sample(range(3), count))
    colours = random.sample(visible_on(sketch.background[0]), count)
    small = random.random() < 0.5
    strings = [any_string(random, held_out=held_out) for _ in rows]
    marks = [
        place_text(random, sketch, text, colour, row, SMALL if small else LARGE)
        for text, colour, row in zip(strings, colours, rows, strict=True)
    ]
    facts = list(zip(marks, rows, strict=True))
    return Scene((sketch.with_marks(tuple(marks)),), tuple(questions(random, facts)))


def kind_of(text: Text) -> str:
    """The kind of question that reading it is: `small text` has a kind of its own."""
    if text.size * cap_height(text.font) <= SMALL[1]:
        return "small text"
    return "string" if any(c.isdigit() for c in text.string) or text.string not in _both_cases() else "word"


def phrase(text: Text) -> str:
    """How a description names it."""
    return f'the text "{text.string}" in {text.colour}'


def questions(random: Random, facts: list[tuple[Text, int]]) -> list[Question]:
    """Everything to ask about texts and the rows they stand in."""
    asked = []
    for text, row in facts:
        kind = kind_of(text)
        place = wording.PLACES[row][1]
        if len(facts) == 1:
            asked.append(Question(kind, ask(random, wording.READ), f'It says "{text.string}".'))
            asked.append(
                Question("colour", ask(random, wording.WHAT_COLOUR, "the text"), f"The text is {text.colour}.")
            )
            asked.append(Question("place", ask(random, wording.WHERE, "the text"), f"The text is {place}."))
        else:
            name = f"the {text.colour} text"
            asked.append(
                Question(kind, ask(random, wording.READ_ONE, name), f'The {text.colour} text says "{text.string}".')
            )
            name = f"the text {place}"
            asked.append(Question(kind, ask(random, wording.READ_ONE, name), f'The text {place} says "{text.string}".'))
            asked.append(
                Question("colour", ask(random, wording.WHAT_COLOUR, name), f"The text {place} is {text.colour}.")
            )
            asked.append(
                Question(
                    "place",
                    ask(random, wording.WHERE, f"the {text.colour} text"),
                    f"The {text.colour} text is {place}.",
                )
            )
    if len(facts) == 1:
        asked.append(_says(random, facts[0][0]))
    asked.append(_how_many(random, len(facts)))
    return asked


def _says(random: Random, text: Text) -> Question:
    right = random.random() < 0.5
    other = text.string
    while other == text.string:
        other = random.choice(_words(False)).upper() if random.random() < 0.5 else code(random)
    asked = ask(random, wording.DOES_IT_SAY, text.string if right else other)
    answer = f'{"Yes" if right else "No"}, it says "{text.string}".'
    return Question("yes/no (text)", asked, answer)


def _how_many(random: Random, count: int) -> Question:
    answer = "There is one text." if count == 1 else f"There are {wording.NUMBERS[count]} texts."
    return Question("count", ask(random, wording.HOW_MANY, "texts"), answer)


@cache
def _words(held_out: bool) -> tuple[str, ...]:
    """The words of one side. Those that look the same in small and capital letters ("cow") are left out."""
    words = (files("smolvlm_edge.demo.scenes") / "words.txt").read_text(encoding="utf-8").split()
    return tuple(
        word
        for word in words
        if not set(word) <= set("cosuvwxz") and (crc32(word.encode()) % HELD_OUT_SHARE == 0) == held_out
    )


@cache
def _both_cases() -> frozenset[str]:
    words = {*_words(True), *_words(False)}
    return frozenset(words | {word.upper() for word in words})
