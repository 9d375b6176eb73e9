"""Lines: what was typed into a chat -> the pictures in it, and the words; what is printed -> what may be."""

import json
import os
import re
import sys
from typing import Any

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
        source: Source = as_source(word)
        return source
    path = _at_home(_unquoted(word))
    named = "." in path or os.sep in path
    return path if named and os.path.isfile(path) else None


def _unquoted(word: str) -> str:
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1].replace(r"'\''", "'")
    return word if os.name == "nt" else re.sub(r"\\(.)", r"\1", word)


def _at_home(path: str) -> str:
    try:
        return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser() raises for a ~name that is nobody's
    except ValueError:  # a NUL in it
        return path


def one_line(text: str) -> str:
    """A message as a line that a terminal can take: names of files may hold what would move its cursor."""
    return escaped(" ".join(text.split()))


def printable(text: str) -> str:
    """An answer as stdout may get it: on a terminal, without characters that steer it."""
    return "\n".join(map(escaped, text.split("\n"))) if sys.stdout.isatty() else text


def escaped(text: str) -> str:
    """The text with escapes, as Python writes them, for what cannot be printed."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\t\u200d" else each.encode("unicode_escape").decode() for each in text
    )


def as_json_line(value: Any) -> str:
    """JSON for stdout, in ASCII where that is a terminal without Unicode; see `cli.main` about pipes and files."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=not is_unicode)
