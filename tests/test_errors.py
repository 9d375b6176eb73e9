"""The table in errors.py, which the command line and a server answer by."""

import re

import pytest

from smolvlm_edge import errors

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
