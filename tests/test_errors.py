"""The table in errors.py, which the command line and a server answer by."""

import pickle
import re
from pathlib import Path

import pytest

from smolvlm_edge import errors
from smolvlm_edge.errors import ContextError, EngineError, IntegrityError, RequestError

TABLE = re.compile(r"^ {4}[│├└─ ]*(\w+Error) +(?:\(\w+\))? +(\d) +(\d{3}) {3}\S", re.MULTILINE)
ROWS = TABLE.findall(errors.__doc__ or "")
CLASSES = {name: value for name, value in vars(errors).items() if name.endswith("Error")}


def test_the_table_names_every_error() -> None:
    assert sorted(name for name, _, _ in ROWS) == sorted(CLASSES)


@pytest.mark.parametrize(("name", "exit_code", "status"), ROWS)
def test_the_table_says_what_the_classes_do(name: str, exit_code: str, status: str) -> None:
    assert CLASSES[name].exit_code == int(exit_code)
    assert CLASSES[name].status == int(status)


def test_clients_ask_again_only_where_that_may_help() -> None:
    """OpenAI's clients do so after 408, 409, 429 and from 500 on: a request that is wrong would be sent three times."""
    for error in (errors.RequestError, errors.ImageError, errors.ModelNotFoundError, errors.StoppedError):
        assert error.status < 500
        assert error.status not in {408, 409, 429}
    assert errors.BusyError.status == 429


def test_errors_that_word_themselves_keep_their_parts_in_another_process() -> None:
    unread = IntegrityError.of_file(Path("a.json"), PermissionError(13, "Permission denied"))
    assert (str(unread), unread.path) == ("a.json cannot be read: Permission denied", Path("a.json"))
    assert str(RequestError.of_file("b", ValueError("no UTF-8"), "written")) == "b cannot be written: no UTF-8"
    missing = EngineError.of_missing("XMP needs", "lxml", "xmp")
    assert (str(missing), missing.extra) == ("XMP needs lxml: pip install 'smol-edge[xmp]'", "xmp")
    full = ContextError.of("9 tokens", 8)
    for error in (unread, missing, full):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert (full.context, full.path, full.extra) == (8, None, None)
