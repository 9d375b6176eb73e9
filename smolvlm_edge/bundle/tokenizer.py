"""A checkpoint's tokenizer, and the one place where its library's panics become errors.

tokenizers is written in Rust; what it did not foresee is a panic, which reaches Python as a BaseException that is no
Exception: nothing that catches errors would see it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from smolvlm_edge.bundle.reading import read_bytes
from smolvlm_edge.errors import IntegrityError


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder; it neither pads nor truncates, whatever the file says.

    Raises:
        IntegrityError: tokenizer.json is missing, unreadable or damaged.
    """
    file = folder / "tokenizer.json"
    data = read_bytes(file)
    try:
        with tokenizing():
            tokenizer = Tokenizer.from_buffer(data)
            tokenizer.no_padding()
            tokenizer.no_truncation()
    except IntegrityError:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise IntegrityError.of_file(file, error) from error
    return tokenizer


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
