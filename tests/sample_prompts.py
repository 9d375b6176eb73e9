"""Conversations, and the tile grid of every picture in them, that the token-id goldens are made of."""

from typing import Any, NamedTuple


class Conversation(NamedTuple):
    messages: list[dict[str, Any]]
    grids: list[tuple[int, int]]
    """(rows, columns) of each picture; (0, 0) is one that is not split."""


PICTURE = {"type": "image"}


def say(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def turn(role: str, *parts: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


PROMPTS: dict[str, Conversation] = {
    "text": Conversation([turn("user", say("What is the capital of France?"))], []),
    "numbers_and_code": Conversation([turn("user", say("for i in range(1024):\n\tprint(3.14159 * i)  # 100 %"))], []),
    "spaces": Conversation([turn("user", say("  two  spaces \n\n\n three newlines\r\n\ttab "))], []),
    "unicode": Conversation(
        [turn("user", say("Größe: naïve 日本語のテキスト, русский, العربية, e\u0301 👩‍👩‍👧 🇨🇭 \ufeff"))], []
    ),
    "markers_typed": Conversation([turn("user", say("<row_1_col_1><fake_token_around_image><end_of_utterance>"))], []),
    "unsplit": Conversation([turn("user", PICTURE, say("Can you describe this image?"))], [(0, 0)]),
    "split_3x4": Conversation([turn("user", PICTURE, say("Can you describe this image?"))], [(3, 4)]),
    "split_1x2": Conversation([turn("user", PICTURE, say("What?"))], [(1, 2)]),
    "split_6x5": Conversation([turn("user", PICTURE, say("What?"))], [(6, 5)]),
    "split_8x8": Conversation([turn("user", PICTURE, say("markers past row 6 are plain text"))], [(8, 8)]),
    "picture_last": Conversation([turn("user", say("Describe "), PICTURE)], [(4, 3)]),
    "text_around": Conversation([turn("user", say("Before\n"), PICTURE, say("\n after."))], [(2, 2)]),
    "newlines_around": Conversation([turn("user", say("\n"), PICTURE, say("\n\nWhat?"))], [(4, 1)]),
    "three_pictures": Conversation(
        [turn("user", PICTURE, PICTURE, say("Which of these is like "), PICTURE, say("?"))], [(4, 4), (1, 4), (4, 2)]
    ),
    "three_unsplit": Conversation([turn("user", PICTURE, PICTURE, PICTURE, say("Compare."))], [(0, 0), (0, 0), (0, 0)]),
    "mixed_grids": Conversation(
        [turn("user", PICTURE, say("and"), PICTURE, PICTURE, say("?"))], [(2, 3), (0, 0), (4, 1)]
    ),
    "system": Conversation(
        [turn("system", say("Answer in one word.")), turn("user", PICTURE, say("Colour?"))], [(1, 4)]
    ),
    "earlier_turns": Conversation(
        [
            turn("user", PICTURE, say("What is this?")),
            turn("assistant", say("A lighthouse on a cliff. 🌊")),
            turn("user", say("And this? "), PICTURE, say(" Be brief.")),
        ],
        [(4, 3), (3, 4)],
    ),
    "continued": Conversation(
        [turn("user", PICTURE, say("Which letter?\nA. red\nB. blue")), turn("assistant", say("Answer:"))], [(1, 2)]
    ),
    "continued_after_a_space": Conversation(
        [turn("user", say("Where is it?")), turn("assistant", say("It is in the "))], []
    ),
    "continued_after_newlines": Conversation(
        [turn("user", say("A list, please.")), turn("assistant", say("1. one\n2. two\n\n"))], []
    ),
    "continued_later": Conversation(
        [
            turn("system", say("Be brief.")),
            turn("user", PICTURE, say("What is this?")),
            turn("assistant", say("A lighthouse.")),
            turn("user", say("And behind it?")),
            turn("assistant", say("Behind"), say(" it is")),
        ],
        [(0, 0)],
    ),
}
"""Where the last turn is the assistant's, the answer goes on from it."""
