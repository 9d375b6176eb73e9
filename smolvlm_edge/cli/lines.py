"""A line that was typed into a chat -> the pictures in it, and the words."""

import os
import re

from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.conversation.sources import as_source

WORD = re.compile(r"""'(?:[^']|'\\'')*'(?=\s|$)|"[^"]*"(?=\s|$)|(?:\\.|\S)+""")
"""A word, or what a terminal writes when a file is dropped on it: quoted, or with a backslash before every space."""


def split_line(line: str) -> tuple[list[Source], str]:
    """The files that are named in a line, and its other words.

    A word is a file if it is a file: URL, or if there is one of that name and it has a dot or a separator in it –
    somebody's file `red` is no reason to take the word out of a question.
    """
    files, rest, end = [], [], 0
    for word in WORD.finditer(line):
        if (file := _file(word[0])) is not None:
            files.append(file)
            rest.append(line[end : word.start()].strip())
            end = word.end()
    rest.append(line[end:].strip())
    return files, " ".join(filter(None, rest))


def typed_path(text: str) -> Source:
    """A path as it was typed, pasted or dropped.

    Raises:
        RequestError: It is a URL of something that would have to be fetched.
    """
    text = _unquoted(text.strip())
    return _at_home(text) if (source := as_source(text)) == text else source


def _file(word: str) -> Source | None:
    if word.lower().startswith("file:"):
        return as_source(word)
    path = _at_home(_unquoted(word))
    named = "." in path or os.sep in path
    return path if named and os.path.isfile(path) else None


def _unquoted(word: str) -> str:
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1].replace(r"'\''", "'")
    return word if os.name == "nt" else re.sub(r"\\(.)", r"\1", word)


def _at_home(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser() raises for a ~name that is nobody's
