"""A hub or mirror that lies: about a file's name, its ETag, its length, or by never coming to an end."""

import hashlib
import json
import threading
from pathlib import Path

import pytest
from command import assert_fails
from hub import Fault, Hub
from test_hub import REPO, Command, command, environment, files, hub  # noqa: F401 - fixtures

from smolvlm_edge.errors import DownloadError
from smolvlm_edge.store.hub import check_name


def written(tmp_path: Path) -> set[str]:
    """Everything outside of the two caches."""
    return {path.name for path in tmp_path.rglob("*") if not {"hf", "smol"} & {*path.relative_to(tmp_path).parts}}


@pytest.mark.parametrize("etag", ["../../../x", "/tmp/x", "a/b", "..", "x\\y", "é", "a" * 500])
def test_an_etag_that_is_a_path(hub: Hub, command: Command, tmp_path: Path, etag: str) -> None:  # noqa: F811
    lie = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.repos[REPO][0], "Content-Length": "2"}
    hub.faults = [Fault(r"/resolve/.*/config\.json", times=99, status=200, headers=lie, body=b"{}")]
    assert_fails(command("models", "pull", REPO), 1, "ETag")
    assert written(tmp_path) == set()
    assert not [*(tmp_path / "hf").rglob("x")]


@pytest.mark.parametrize("name", ["../x.safetensors", "..\\x.json", "a\x1b[2J.json", "/x", "..", "", "a/b"])
def test_a_listed_name_that_is_a_path(name: str) -> None:
    with pytest.raises(DownloadError) as caught:
        check_name(name)
    assert str(caught.value).isprintable()


def test_weights_that_are_not_those_of_their_etag(hub: Hub, command: Command, files: dict[str, bytes]) -> None:  # noqa: F811
    """Never stopped, so that nothing was resumed."""
    weights = next(name for name in files if name.endswith(".safetensors"))
    other = bytes(len(files[weights]))
    etag = hashlib.sha256(files[weights]).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.repos[REPO][0]}
    hub.faults = [Fault(rf"/resolve/.*{weights}", 99, 200, {**headers, "Content-Length": str(len(other))}, body=other)]
    assert_fails(command("models", "pull", REPO), 1, weights, "damaged")


def test_a_file_that_says_it_is_huge(hub: Hub, command: Command) -> None:  # noqa: F811
    headers = {"ETag": '"abc"', "X-Repo-Commit": hub.repos[REPO][0], "Content-Length": str(1 << 40)}
    hub.faults = [Fault(r"/resolve/.*/tokenizer\.json", 99, 200, headers, method="HEAD")]
    assert_fails(command("models", "pull", REPO), 1, "tokenizer.json", "the most")


def test_a_file_that_goes_on_beyond_its_length(hub: Hub, command: Command) -> None:  # noqa: F811
    """The HEAD says 10 bytes; the body is longer, and without a length of its own it would never end."""
    headers = {"ETag": '"abc"', "X-Repo-Commit": hub.repos[REPO][0]}
    short = Fault(r"/resolve/.*/tokenizer\.json", 99, 200, {**headers, "Content-Length": "10"}, method="HEAD")
    endless = Fault(r"/resolve/.*/tokenizer\.json", 99, 200, headers, body=bytes(1 << 20), method="GET")
    hub.faults = [short, endless]
    assert_fails(command("models", "pull", REPO), 1, "tokenizer.json", "goes on beyond")


def test_a_listing_without_end(hub: Hub, command: Command) -> None:  # noqa: F811
    entries = [{"type": "file", "oid": "0" * 40, "size": 1, "path": f"file-{number}"} for number in range(10_500)]
    hub.faults = [Fault(r"/tree/", 99, 200, body=json.dumps(entries).encode())]
    assert_fails(command("models", "pull", REPO), 1, "lists more than")


@pytest.mark.parametrize("path", ["/api/models/", "/tree/"])
def test_a_page_without_end(hub: Hub, command: Command, path: str) -> None:  # noqa: F811
    """Bounded by bytes: the time that a hub may take is enough for gigabytes."""
    hub.faults = [Fault(path, 99, 200, body=b'[{"path": "' + b"x" * (70 << 20))]
    assert_fails(command("models", "pull", REPO), 1, "goes on beyond the 67,108,864 bytes")


@pytest.mark.parametrize("path", ["/api/models/", "/tree/", "/resolve/"])
def test_a_hub_that_accepts_and_never_answers(hub: Hub, command: Command, path: str) -> None:  # noqa: F811
    silent = threading.Event()
    hub.watch = lambda asked: silent.wait(30) and None if path in asked else None
    try:
        assert_fails(command("models", "pull", REPO, SMOL_EDGE_HUB_TIMEOUT="2"), 1, "did not answer within 2 seconds")
    finally:
        silent.set()
