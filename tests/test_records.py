"""Files of results that a killed run left: whatever is there in full stays, and nothing else."""

import json
import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm_edge import RequestError
from smolvlm_edge.records import open_records

BEGIN = {"a test": 1, "prompt": "déscribe\n", "hash": "0" * 64}
NO_UNICODE = [chr(code) for code in range(0xDC80, 0xDD00)]  # how Python spells bytes of a file's name that are none
texts = st.text(st.characters(codec="utf-8") | st.sampled_from(NO_UNICODE), max_size=8)


def is_whole(line: dict) -> bool:
    return "name" in line


def names(path: Path, *more: str, keep=lambda line: True) -> list[str]:
    with open_records(path, BEGIN, "--out", is_whole, keep) as records:
        for name in more:
            records.add({"name": name})
        return [line["name"] for line in records.lines]


@given(st.lists(texts, max_size=4), st.data())
@settings(deadline=None, max_examples=200)
def test_wherever_it_was_cut_off_it_goes_on(tmp_path_factory, given_names: list[str], data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.unlink(missing_ok=True)
    assert names(path, *given_names) == []
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    kept = names(path)
    assert kept == given_names[: len(kept)]
    names(path, *given_names[len(kept) :])
    assert path.read_bytes() == whole
    assert names(path) == given_names


def test_every_line_is_json_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    names(path, "naïve 😀\r\n\u2028", "\udcff")
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [BEGIN, {"name": "naïve 😀\r\n\u2028"}, {"name": "\udcff"}]
    assert lines[-1] == ""
    assert list(tmp_path.iterdir()) == [path]


def test_lines_that_are_not_to_stay_go_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    names(path, "a", "b", "c")
    path.chmod(0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    assert names(link, keep=lambda line: line["name"] != "b") == ["a", "c"]
    assert names(path) == ["a", "c"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a photo diary\nof mine\n", ["something other", "--out"]),
        (b'{"another": 1}\n', ["something other"]),
        (b"[1]\n", ["something other"]),
        (json.dumps({**BEGIN, "prompt": "x"}).encode() + b"\n", ['prompt ("x" there, "déscribe\\n" here)', "--out"]),
        (json.dumps({**BEGIN, "hash": "1" * 64}).encode() + b"\n", ["differs in hash:"]),
        (json.dumps(BEGIN).encode() + b'\n{"name": 1}\n{"nam\n', ["line 3 is damaged"]),
        (json.dumps(BEGIN).encode() + b"\n{}\n", ["line 2 is damaged"]),
    ],
)
def test_what_is_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        names(path)
    for word in ["out.jsonl", *words]:
        assert word in str(caught.value)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    for path, word in [
        (tmp_path / "nowhere" / "out.jsonl", "is no folder"),
        (tmp_path, "is no file"),
        (Path(os.devnull), "is no file"),
    ]:
        with pytest.raises(RequestError, match=word):
            names(path)


def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    names(path, "a")
    before = path.read_bytes()
    with FileLock(tmp_path / ".out.jsonl.lock"), pytest.raises(RequestError, match="another run is writing"):
        names(path)
    assert path.read_bytes() == before
    with open_records(path, BEGIN, "--out", is_whole), pytest.raises(RequestError, match="another run"):
        names(path)
    assert names(path) == ["a"], "and it is free afterwards"
