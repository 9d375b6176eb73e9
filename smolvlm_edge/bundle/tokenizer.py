"""A checkpoint's tokenizer, and the one place where its library's panics become errors.

tokenizers is written in Rust; what it did not foresee is a panic, which reaches Python as a BaseException that is no
Exception: nothing that catches errors would see it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from smolvlm_edge.bundle.reading import read_bytes
from smolvlm_edge.errors import IntegrityError

PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')
MOST_STEPS = 24
"""Of a part of tokenizer.json; those of the family have four at most, others up to ten."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder; it neither pads nor truncates, whatever the file says.

    Raises:
        IntegrityError: tokenizer.json is missing, unreadable or damaged.
    """
    file = folder / "tokenizer.json"
    data = read_bytes(file)
    if PREFIX.search(data):  # not even the error that the library makes of it can be told: the process ends
        raise IntegrityError(f"{file}: continuing_subword_prefix is not supported: tokens of this family have none")
    try:
        with tokenizing():
            tokenizer = Tokenizer.from_buffer(data)
            tokenizer.no_padding()
            tokenizer.no_truncation()
        _check_steps(tokenizer, file)
    except IntegrityError:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise IntegrityError.of_file(file, error) from error
    return tokenizer


def _check_steps(tokenizer: Tokenizer, file: Path) -> None:
    """Refuse what the library would be at for ever: each step may make a text twice as long."""
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        part: Any = getattr(tokenizer, name)
        if part is not None and _steps(json.loads(part.__getstate__())) > MOST_STEPS:
            raise IntegrityError(f"{file}: {name} has more than {MOST_STEPS} steps: no known tokenizer does")


def _steps(part: Any) -> int:
    """How many steps a part of tokenizer.json has, one within another."""
    if isinstance(part, dict):
        return ("type" in part) + sum(map(_steps, part.values()))
    return sum(map(_steps, part)) if isinstance(part, list) else 0


@contextmanager
def tokenizing() -> Iterator[None]:
    """What calls tokenizers stands in here.

    Raises:
        IntegrityError: The library panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3 gives its class no place to import it from
            raise
        raise IntegrityError(
            f"the tokenizer gave up on this text ({error}): tokenizer.json is damaged, or made for other texts"
        ) from None
