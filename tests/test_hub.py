"""Models by name, against a hub on localhost: pinned, verified, resumed, raced for, found again without a network."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import assert_fails, smol_edge
from hub import Fault, Hub, serving
from released_files import unpack

from smolvlm_edge.store.lockfile import locked_models

REPO = "someone/tiny-vlm"
STORY = "Tell me a story."
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def files(tiny_checkpoints: dict[str, Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny_checkpoints["tiny-idefics3"].iterdir()}


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub()
    hub.add(REPO, {**files, "README.md": b"# tiny", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x" * 1000})
    with serving(hub):
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """HF_HOME and SMOL_EDGE_HOME in a folder of their own, the hub on localhost, and no proxy between."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SMOL_EDGE_"))}
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "SMOL_EDGE_HOME": str(tmp_path / "smol")}
    return {**kept, **home, "HF_ENDPOINT": hub.url, "NO_PROXY": "*"}


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """smol-edge against that hub, without the waits between tries, connecting to nothing but localhost."""

    def run(*arguments: str | Path, lock: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return smol_edge(*arguments, patch=PATCH + lock, env={**environment, **more})

    return run


PATCH = """
import socket
connect = socket.socket.connect
def local_only(self, address, *rest):
    assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
    return connect(self, address, *rest)
socket.socket.connect = local_only
import smolvlm_edge.store.hub as hub
hub.FIRST_WAIT = 0.01
import huggingface_hub.constants, huggingface_hub.utils._http as http
http.time.sleep = lambda _: None
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is in hand when a connection breaks counts in chunks
"""


def pinned(hub: Hub, files: dict[str, bytes], **changes: str) -> str:
    """Code that gives the repository the short name `tiny`, its files pinned by their hashes."""
    hashes = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()} | changes
    entries = ", ".join(f"{n!r}: LockedFile({len(files[n])}, {hashes[n]!r})" for n in files)
    return f"""
from smolvlm_edge.store import lockfile
from smolvlm_edge.store.lockfile import LockedFile, LockedModel
tiny = LockedModel("tiny", "a test", {REPO!r}, {hub.repos[REPO][0]!r}, files={{{entries}}})
models = {{"tiny": tiny, **lockfile.locked_models()}}
import sys, smolvlm_edge.cli
for module in ("store", "cli.options", "cli.models"):
    sys.modules["smolvlm_edge." + module].locked_models = lambda: models
"""


# -- export and run by name ------------------------------------------------------------------------


def test_a_name_is_fetched_exported_and_answers_and_then_needs_no_network(hub: Hub, command: Command) -> None:
    first = command("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4")
    assert first.returncode == 0, first.stderr
    assert re.search(r"note: someone/tiny-vlm .*: download [\d,]+ MB and export fp32 to ", first.stderr)
    asked = len(hub.requests)
    again = command("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "4")
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert len(hub.requests) == asked  # cached first
    offline = command("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "4", "--offline")
    assert offline.stdout == first.stdout


def test_an_engine_that_is_named_gets_a_bundle_of_its_own(hub: Hub, command: Command, tmp_path: Path) -> None:
    run = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4")
    missing = command(*run, "--engine", "openvino", lock="sys.modules['openvino'] = None")
    assert_fails(missing, 1, "smol-edge[openvino]")
    assert hub.requests == []  # before anything is fetched
    answers = [command(*run, *options).stdout for options in ((), ("--engine", "openvino"))]
    assert answers[0] == answers[1] != ""
    kept = [json.loads(path.read_text())["targets"] for path in (tmp_path / "smol").rglob("bundle.json")]
    assert sorted(kept) == [["onnx"], ["openvino"]]


def test_only_what_is_needed_is_fetched(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    result = command("models", "pull", REPO)
    assert result.returncode == 0, result.stderr
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
    assert fetched == set(files)
    assert Path(result.stdout.strip(), "model.safetensors").read_bytes() == files["model.safetensors"]


def test_the_exporter_takes_names_and_remembers_the_commit(hub: Hub, command: Command, tmp_path: Path) -> None:
    result = command("export", f"{REPO}@main", "--quant", "fp32", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert (manifest["source"], manifest["revision"]) == (REPO, hub.repos[REPO][0])


def test_without_a_terminal_nothing_is_fetched_unasked(hub: Hub, command: Command) -> None:
    result = command("run", STORY, "--model", REPO)
    assert_fails(result, 2, "--yes")
    assert not hub.bodies("model.safetensors")


def test_the_library_takes_names_too(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    code = f"from smolvlm_edge import SmolVLM; print(SmolVLM.load({REPO!r}, quant='int8').bundle.source)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout.strip() == REPO, result.stderr


# -- pins ------------------------------------------------------------------------------------------


def test_a_pinned_model_is_verified_once(hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path) -> None:
    lock = pinned(hub, files)
    assert command("models", "pull", "tiny", lock=lock).returncode == 0
    verified = json.loads((tmp_path / "smol" / "verified.json").read_text())
    assert {entry[2] for entry in verified.values()} == {hashlib.sha256(body).hexdigest() for body in files.values()}
    unread = (
        "\nimport smolvlm_edge.store.verified as v\ndef read(_): raise AssertionError('read again')\nv.sha256 = read"
    )
    result = command("models", "verify", "tiny", lock=lock + unread)
    assert result.returncode == 0, result.stderr
    assert f"{len(files)} files have their sha256" in result.stdout


def test_a_changed_byte_is_refused(hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path) -> None:
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    commit = hub.repos[REPO][0]
    lock = pinned(hub, files)
    hub.add(REPO, {**files, "model.safetensors": bytes(weights)}, commit)
    for arguments in (("models", "pull", "tiny"), ("export", "tiny", "--out", tmp_path / "out")):
        assert_fails(command(*arguments, lock=lock), 4, "model.safetensors", "sha256", "smol-edge models rm tiny")
    assert not (tmp_path / "out").exists()
    assert command("models", "rm", "tiny", lock=lock).returncode == 0
    hub.add(REPO, files, commit)
    assert command("models", "pull", "tiny", lock=lock).returncode == 0


def test_another_commit_than_the_pinned_one_is_not_taken(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    lock = pinned(hub, files)
    hub.add(REPO, files, "f" * 40)
    assert_fails(command("models", "pull", "tiny", lock=lock), 3, "no revision")


# -- trouble ---------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    size = len(files["model.safetensors"])
    hub.faults.append(Fault(r"/resolve/.*model\.safetensors", cut_after=size // 2, method="GET"))
    result = command("models", "pull", REPO)
    assert result.returncode == 0, result.stderr
    ranges = hub.bodies("model.safetensors")
    assert ranges[0] == ""
    assert 0 < int(re.fullmatch(r"bytes=(\d+)-", ranges[1])[1]) <= size // 2


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("path", [r"/api/models/", r"/resolve/.*model\.safetensors"])
def test_a_busy_hub_is_asked_again(hub: Hub, command: Command, status: int, path: str) -> None:
    hub.faults.append(Fault(path, times=2, status=status))
    result = command("models", "pull", REPO)
    assert result.returncode == 0, result.stderr


def test_but_not_for_ever(hub: Hub, command: Command) -> None:
    hub.faults.append(Fault(r".", times=1000, status=503))
    assert_fails(command("models", "pull", REPO), 1, "HTTP 503", "repeat the command")
    assert len(hub.requests) < 60


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, ["gated", "hf auth login"]),
        (403, {"X-Error-Code": "GatedRepo"}, ["gated", "hf auth login"]),
        (401, {}, ["private", "hf auth login"]),
        (403, {}, ["hf auth login"]),
        (404, {"X-Error-Code": "RepoNotFound"}, ["does not exist"]),
    ],
)
def test_no_right_to_read_it(
    hub: Hub, command: Command, status: int, headers: dict[str, str], words: list[str]
) -> None:
    hub.faults.append(Fault(r".", times=1000, status=status, headers=headers))
    for arguments in (("models", "pull", REPO), ("run", STORY, "--model", REPO, "--yes")):
        assert_fails(command(*arguments), 3, REPO, *words)


def test_no_hub_at_all(hub: Hub, command: Command) -> None:
    assert_fails(command("models", "pull", REPO, HF_ENDPOINT="http://127.0.0.1:9"), 1, REPO, "http://127.0.0.1:9")


def test_a_full_disk(hub: Hub, command: Command) -> None:
    full = """
import errno, huggingface_hub.file_download as f
def http_get(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")
f.http_get = http_get
"""
    assert_fails(command("models", "pull", REPO, lock=full), 1, "no space left")


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_offline_without_a_cache(hub: Hub, command: Command, how: str, tmp_path: Path) -> None:
    more = {"HF_HUB_OFFLINE": "1"} if how == "variable" else {}
    flag = ("--offline",) if how == "flag" else ()
    result = command("export", REPO, "--out", tmp_path / "out", *flag, **more)
    assert_fails(result, 3, REPO, "cache")
    assert not hub.requests


def test_pickled_weights_are_refused_before_they_are_fetched(
    hub: Hub, command: Command, files: dict[str, bytes]
) -> None:
    hub.add("someone/old", {**{n: b for n, b in files.items() if n != "model.safetensors"}, "pytorch_model.bin": b"x"})
    for arguments in (("run", STORY, "--model", "someone/old", "--yes"), ("models", "pull", "someone/old")):
        assert_fails(command(*arguments), 1, "safetensors", "pickled")
    assert not hub.bodies("pytorch_model.bin")


# -- two at once, and a killed one -----------------------------------------------------------------


def test_two_processes_make_one_bundle(hub: Hub, environment: dict[str, str], tmp_path: Path) -> None:
    hub.pause = 0.2
    program = f"{PATCH}\nfrom smolvlm_edge.cli import main\nmain()"
    arguments = ["run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "3"]
    both = [
        subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=-1, stderr=-1, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    folders = [path for path in (tmp_path / "smol" / "bundles").iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert not folders[0].name.startswith(".")


def test_an_interrupted_pull_goes_on(hub: Hub, environment: dict[str, str], command: Command) -> None:
    hub.pause = 5.0
    program = f"{PATCH}\nfrom smolvlm_edge.cli import main\nmain()"
    command_line = [sys.executable, "-c", program, "models", "pull", REPO]
    process = subprocess.Popen(command_line, stderr=subprocess.DEVNULL, env=environment)
    while not hub.bodies("model.safetensors"):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert command("models", "path", REPO, "--offline").returncode == 3  # half of it is nothing
    hub.pause = 0.0
    assert command("models", "pull", REPO).returncode == 0
    assert command("models", "path", REPO, "--offline").returncode == 0


def test_what_a_killed_export_left_is_swept_up(hub: Hub, command: Command, tmp_path: Path) -> None:
    options = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "1")
    assert command(*options).returncode == 0
    (folder,) = [path for path in (tmp_path / "smol" / "bundles").iterdir() if path.is_dir()]
    left = folder.rename(folder.with_name(f".{folder.name}.0123abcd.partial"))
    assert command(*options).returncode == 0
    assert folder.is_dir()
    assert not left.exists()


# -- the list and the rest -------------------------------------------------------------------------


def test_list_tells_what_is_known_and_what_is_here(command: Command, hub: Hub, files: dict[str, bytes]) -> None:
    lock = pinned(hub, files)
    run = command("run", STORY, "--model", "tiny", "--quant", "int8", "--yes", "--max-tokens", "1", lock=lock)
    assert run.returncode == 0, run.stderr
    rows = {row["name"]: row for row in json.loads(command("models", "list", "--json", lock=lock).stdout)}
    assert set(locked_models()) < set(rows)
    assert (rows["tiny"]["checkpoint"], rows["tiny"]["bundles"], rows["tiny"]["pinned"]) == (True, ["int8"], "sha256")
    assert (rows["smolvlm-256m"]["checkpoint"], rows["smolvlm-256m"]["bundles"]) == (False, [])
    freed = command("models", "rm", "tiny", lock=lock)
    assert freed.returncode == 0
    assert_fails(command("models", "rm", "tiny", lock=lock), 3, "nothing of tiny")


def test_lock_prints_an_entry_with_the_hashes_of_what_came(command: Command, hub: Hub, files: dict[str, bytes]) -> None:
    lock = pinned(hub, files).replace("files={", "files={} and {")
    assert command("models", "pull", "tiny", lock=lock).returncode == 0
    entry = tomllib.loads(command("models", "lock", "tiny", lock=lock).stdout)["tiny"]
    assert (entry["repo"], entry["revision"]) == (REPO, hub.repos[REPO][0])
    assert {n: f["sha256"] for n, f in entry["files"].items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in files.items()
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [("smolvlm256m", "did you mean smolvlm-256m"), ("./nothing", "no folder"), ("a/b/c", "no model's name")],
)
def test_a_name_that_is_none(command: Command, name: str, words: str) -> None:
    assert_fails(command("run", STORY, "--model", name), 3, name, words)


def test_every_entry_of_models_lock_is_pinned() -> None:
    for model in locked_models().values():
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repo)
        for file in (model.files or {}).values():
            assert file.size > 0
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


def test_the_released_tokenizer_files_are_those_that_models_lock_names(tmp_path: Path) -> None:
    files = locked_models()["smolvlm-256m"].files or {}
    compared = [path for path in unpack(tmp_path).iterdir() if path.name in files]
    assert len(compared) >= 5
    for path in compared:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == files[path.name].sha256


def test_loading_a_folder_never_imports_the_hub_library(tiny_bundle) -> None:
    bundle = tiny_bundle("tiny-idefics3", "fp32")
    code = f"import sys, smolvlm_edge as s; s.SmolVLM.load({str(bundle)!r}); print('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout == "False\n"
