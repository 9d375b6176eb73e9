"""Models by name, against a hub on localhost: pinned, verified, resumed, raced for, found again without a network."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import assert_fails, smol_edge
from hub import Fault, Hub, serving
from released_files import unpack
from test_privacy import die_on_any_connection, die_on_any_socket

from smolvlm_edge import SmolVLM
from smolvlm_edge.errors import RequestError
from smolvlm_edge.store.lockfile import PLACES, LockedFile, LockedModel, locked_models

REPO = "someone/tiny-vlm"
USES_REQUESTS = int(version("huggingface_hub").partition(".")[0]) < 1
STORY = "Tell me a story."
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra [openvino]")
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
    return {**kept, **home, "HF_ENDPOINT": hub.url, "NO_PROXY": "*", "SMOL_EDGE_MEASURE": "0"}


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """smol-edge against that hub, without the waits between tries, connecting to nothing but localhost."""

    def run(
        *arguments: str | Path, lock: str = "", sockets: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        guard = None if sockets else die_on_any_connection if USES_REQUESTS else die_on_any_socket
        return smol_edge(*arguments, patch=PATCH + lock, env={**environment, **more}, preexec_fn=guard)

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """The same, not waited for."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        program = f"{PATCH}\nfrom smolvlm_edge.cli import main\nmain()"
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **options}
        return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], **options)

    return run


PATCH = """
import smolvlm_edge.graphs.choice
smolvlm_edge.graphs.choice.processor_features = lambda: ["vnni"]  # where auto takes ONNX Runtime for both halves
import socket
connect = socket.socket.connect
def local_only(self, address, *rest):
    assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
    return connect(self, address, *rest)
socket.socket.connect = local_only
lookup = socket.getaddrinfo
def local_name(host, *rest, **more):
    assert host in ("127.0.0.1", "::1", "localhost"), host
    return lookup(host, *rest, **more)
socket.getaddrinfo = local_name
from smolvlm_edge.store.hub import downloads, retries
retries.FIRST_WAIT = 0.01
import huggingface_hub.constants, huggingface_hub.utils._http as http
http.time.sleep = lambda _: None
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 200_000  # what is in hand when a connection breaks counts in chunks
"""
HALF = 200_000


def pinned(hub: Hub, files: dict[str, bytes]) -> str:
    """Code that adds an entry `tiny` to models.lock: the repository's newest commit, these files by their hashes."""
    locked = {name: LockedFile(len(body), hashlib.sha256(body).hexdigest()) for name, body in files.items()}
    entry = LockedModel("tiny", "a test", REPO, hub.repos[REPO][0], files=locked).to_toml()
    return f"""
from smolvlm_edge.store import lockfile
class Lock:
    def is_file(self): return True
    def read_text(self, encoding): return {entry + PLACES[-1].read_text(encoding="utf-8")!r}
lockfile.PLACES = (Lock(),)
"""


def sharded(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same checkpoint as one shard and an index."""
    shard = "model-00001-of-00001.safetensors"
    index = json.dumps({"weight_map": {"every": shard}}).encode()
    others = {name: body for name, body in files.items() if name != "model.safetensors"}
    return {**others, shard: files["model.safetensors"], "model.safetensors.index.json": index}


def bundle_folders(tmp_path: Path) -> list[Path]:
    """But for hidden ones, which hold what an engine compiled."""
    return [path for path in (tmp_path / "smol" / "bundles").glob("[!.]*") if path.is_dir()]


# -- export and run by name ------------------------------------------------------------------------


def test_a_name_is_fetched_exported_and_answers_and_then_needs_no_network(hub: Hub, command: Command) -> None:
    first = command("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4")
    assert first.returncode == 0, first.stderr
    assert re.search(r"note: someone/tiny-vlm .*: download [\d,]+ MB and export fp32 to ", first.stderr)
    asked = len(hub.requests)
    again = command("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "4")
    assert again.stdout == first.stdout
    assert "download" not in again.stderr
    assert len(hub.requests) == asked  # cached first
    options = ("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "4", "--offline")
    assert command(*options, sockets=False).stdout == first.stdout


@needs_openvino
def test_an_engine_that_is_named_gets_a_bundle_of_its_own(hub: Hub, command: Command, tmp_path: Path) -> None:
    run = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4")
    export = ("export", REPO, "--target", "openvino", "--out", tmp_path / "out")
    for arguments in ((*run, "--engine", "openvino"), export):
        assert_fails(command(*arguments, lock="sys.modules['openvino'] = None"), 1, "smol-edge[openvino]")
    assert hub.requests == []  # before anything is fetched
    answers = [command(*run, *options).stdout for options in ((), ("--engine", "openvino"))]
    assert answers[0] == answers[1] != ""
    kept = [json.loads(path.read_text())["targets"] for path in (tmp_path / "smol").rglob("bundle.json")]
    assert sorted(kept) == [["onnx"], ["openvino"]]


@needs_openvino
def test_a_bundle_for_another_engine_is_found_by_whoever_can_use_it(hub: Hub, command: Command, tmp_path: Path) -> None:
    run = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4", "--json")
    first = command(*run, "--engine", "openvino")
    assert first.returncode == 0, first.stderr
    (folder,) = bundle_folders(tmp_path)
    told = command("info", REPO, "--quant", "fp32", "--json", sockets=False)
    assert json.loads(told.stdout)["folder"] == str(folder)
    assert json.loads(command(*run, sockets=False).stdout)["engines"]["decoder"]["engine"] == "openvino"
    assert bundle_folders(tmp_path) == [folder]
    without = command(*run, lock="sys.modules['openvino'] = None")  # of no use there, so one is made that is
    assert json.loads(without.stdout)["engines"]["decoder"]["engine"] == "onnxruntime"
    assert len(bundle_folders(tmp_path)) == 2


@needs_openvino
def test_a_mixture_gets_a_bundle_for_both_which_then_serves_every_wish(
    hub: Hub, command: Command, tmp_path: Path
) -> None:
    run = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "4")
    answers = {
        command(*run, *options).stdout
        for options in (
            ("--engine", "vision=openvino,decoder=onnxruntime"),
            ("--engine", "openvino"),
            ("--engine", "onnxruntime"),
            (),
        )
    }
    assert len(answers) == 1
    assert answers != {""}
    (folder,) = bundle_folders(tmp_path)
    assert json.loads((folder / "bundle.json").read_text())["targets"] == ["onnx", "openvino"]
    assert list(folder.parent.glob(".*.openvino-*/*"))
    assert command("models", "rm", REPO).returncode == 0
    assert not list(folder.parent.glob(".*.openvino-*")), "what was compiled of it goes with it"


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
    assert command("models", "pull", "tiny", lock=lock + unread).returncode == 0
    assert "read again" in command("models", "verify", "tiny", lock=lock + unread).stderr  # who asks, wants it read
    result = command("models", "verify", "tiny", lock=lock)
    assert result.returncode == 0, result.stderr
    assert f"{len(files)} files have their sha256" in result.stdout


@pytest.mark.parametrize("name", ["tiny", REPO, f"{REPO}@COMMIT"])
def test_a_changed_byte_is_refused(
    hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    commit = hub.repos[REPO][0]
    lock, name = pinned(hub, files), name.replace("COMMIT", commit)
    hub.add(REPO, {**files, "model.safetensors": bytes(weights)}, commit)
    for arguments in (("models", "pull", name), ("export", name, "--out", tmp_path / "out")):
        assert_fails(command(*arguments, lock=lock), 4, "model.safetensors", "sha256", f"smol-edge models rm {name}")
    assert not (tmp_path / "out").exists()
    assert command("models", "rm", name, lock=lock).returncode == 0
    hub.add(REPO, files, commit)
    assert command("models", "pull", name, lock=lock).returncode == 0


def test_a_file_that_is_not_pinned_is_neither_fetched_nor_used(
    hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path
) -> None:
    lock, stowaway = (
        pinned(hub, sharded(files)),
        {"model.safetensors": b"other weights", "chat_template.jinja": b"lies"},
    )
    hub.add(REPO, {**sharded(files), **stowaway}, hub.repos[REPO][0])
    pulled = command("models", "pull", "tiny", lock=lock)
    assert pulled.returncode == 0, pulled.stderr
    folder = Path(pulled.stdout.strip())
    assert {path.name for path in folder.iterdir()} == set(sharded(files))
    for name, body in stowaway.items():  # as another program may have left it in the same cache
        (folder / name).write_bytes(body)
        result = command("export", "tiny", "--out", tmp_path / "out", lock=lock)
        assert_fails(result, 4, name, "no part of tiny", "smol-edge models rm tiny")
        (folder / name).unlink()


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
import errno
def http_get(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")
downloads.http_get = http_get
"""
    assert_fails(command("models", "pull", REPO, lock=full), 1, "no space left")


def test_a_portal_that_answers_for_the_hub(hub: Hub, command: Command) -> None:
    page = {"Content-Type": "text/html"}
    hub.faults.append(Fault(r".", times=1000, status=200, headers=page, body=b"<html>Log in"))
    for name in (REPO, "smolvlm-256m"):
        assert_fails(command("models", "pull", name), 1, "does not answer as a model hub")


def test_a_token_that_no_header_can_hold(command: Command) -> None:
    for token in ("hf_caf\u00e9", "hf_a\x01b"):
        assert_fails(command("models", "pull", REPO, HF_TOKEN=token), 2, "HF_TOKEN")


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    with serving(Hub(repos=dict(hub.repos))) as cdn:
        hub.cdn = cdn.url.replace("127.0.0.1", "localhost")
        assert command("models", "pull", REPO, HF_TOKEN="hf_secret").returncode == 0
        assert set(hub.tokens) == {"Bearer hf_secret"}
        assert cdn.bodies("model.safetensors")
        assert set(cdn.tokens) == {""}


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(r".", times=1000, status=status) for status in (401, 403, 500)),
        Fault(r"safetensors", times=1000, cut_after=0, method="GET"),
    ],
    ids=["401", "403", "500", "cut"],
)
def test_no_error_shows_a_secret(hub: Hub, command: Command, fault: Fault) -> None:
    hub.faults = [fault]
    mirror = hub.url.replace("://", "://somebody:password@")
    result = command("models", "pull", REPO, HF_TOKEN="hf_secret", HF_ENDPOINT=mirror)
    assert_fails(result, 3 if fault.status in {401, 403} else 1, REPO)
    assert "hf_secret" not in result.stderr
    assert "password" not in result.stderr


def test_a_repository_cannot_write_outside_the_cache(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    hub.add(REPO, {**files, "model-a/../../x-of-1.safetensors": b"x"})
    result = command("models", "pull", REPO)
    assert result.returncode == 0, result.stderr
    assert not hub.bodies("x-of-1.safetensors")


def test_a_recipe_that_is_none_is_refused_before_the_hub_is_asked() -> None:
    with pytest.raises(RequestError, match="fp32, int8, int4, not 'q4'"):
        SmolVLM.load(REPO, quant="q4")


def test_a_branch_that_moves_meanwhile(hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path) -> None:
    commit = hub.repos[REPO][0]

    def move(path: str) -> None:
        if "/tree/" in path and hub.repos[REPO][0] == commit:
            hub.add(REPO, {**files, "tokenizer.json": b"{}"}, "b" * 40, keep=True)

    hub.watch = move
    result = command("export", REPO, "--quant", "fp32", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert hub.repos[REPO][0] == "b" * 40
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["revision"] == commit
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == files["tokenizer.json"]


# -- what is checked before something is fetched ---------------------------------------------------


def test_an_output_that_is_in_the_way(hub: Hub, command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert_fails(command("export", REPO, "--out", tmp_path / "out"), 2, "exists")
    assert not hub.requests


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("missing.jpg", "describe"), 5, "missing.jpg"),
        ((__file__, "describe"), 5, "no picture"),
        ((" ",), 2, "prompt is empty"),
        (("describe", "--longest-edge", "0"), 2, "longest_edge"),
    ],
)
def test_a_request_that_no_model_could_answer(
    hub: Hub, command: Command, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    assert_fails(command("run", *arguments, "--model", REPO, "--yes"), exit_code, words)
    assert not hub.requests


def test_an_adapter_is_looked_at_before_its_base_is_fetched(hub: Hub, command: Command) -> None:
    hub.add("someone/ia3", {"adapter_config.json": b'{"peft_type": "IA3"}', "adapter_model.safetensors": b"x"})
    for adapter, exit_code, words in (
        ("./typo", 3, "typo"),
        (REPO, 3, "without --adapter"),
        ("someone/ia3", 1, "IA3"),
    ):
        assert_fails(command("export", REPO, "--adapter", adapter), exit_code, words)
    assert not hub.bodies("/model.safetensors")


@pytest.mark.parametrize(
    ("changes", "exit_code", "words"),
    [
        ({"model.safetensors": None, "model-q4.gguf": b"GGUF"}, 1, ["someone/tiny-vlm/model-q4.gguf", "llama.cpp"]),
        (
            {
                "model.safetensors": None,
                "config.json": None,
                "adapter_config.json": b"{}",
                "adapter_model.safetensors": b"",
            },
            3,
            ["is an adapter", f"--adapter {REPO}"],
        ),
        ({"config.json": b'{"quantization_config": {"quant_method": "awq"}}'}, 1, ["quantised already", "awq"]),
        ({"config.json": b'{"model_type": "llama"}'}, 1, ["llama", "not supported"]),
        ({"model.safetensors": None, "consolidated.safetensors": b"x"}, 3, ["model.safetensors"]),
        (dict.fromkeys(("model.safetensors", "config.json", "tokenizer.json")), 3, ["config.json"]),
    ],
)
def test_what_is_no_checkpoint_is_refused_before_its_weights_are_fetched(
    hub: Hub,
    command: Command,
    files: dict[str, bytes],
    changes: dict[str, bytes | None],
    exit_code: int,
    words: list[str],
    tmp_path: Path,
) -> None:
    hub.add(REPO, {name: body for name, body in {**files, **changes}.items() if body is not None})
    for arguments in (("models", "pull", REPO), ("export", REPO, "--out", tmp_path / "out")):
        assert_fails(command(*arguments), exit_code, *words)
    assert not hub.bodies(".safetensors")


# -- on a terminal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("typed", "exit_code"), [("y\n", 0), ("n\n", 2), ("\x03", 130)])
def test_on_a_terminal_it_asks_first(hub: Hub, start: Callable[..., Any], typed: str, exit_code: int) -> None:
    ours, theirs = os.openpty()
    process = start(
        *("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "1"),
        stdin=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is one
    )
    os.close(theirs)
    shown = b""
    while b"Continue?" not in shown:
        shown += os.read(ours, 1000)
    assert b"download" in shown
    assert not hub.bodies("model.safetensors")
    os.write(ours, typed.encode())
    while process.poll() is None:
        with suppress(OSError):  # the terminal is closed from the other side
            shown += os.read(ours, 1000)
    os.close(ours)
    process.communicate()
    assert process.returncode == exit_code, shown
    assert bool(hub.bodies("model.safetensors")) == (exit_code == 0)
    assert b"Traceback" not in shown


# -- offline, and a cache that other programs fill too ---------------------------------------------


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_offline_without_a_cache(hub: Hub, command: Command, how: str, tmp_path: Path) -> None:
    more = {"HF_HUB_OFFLINE": "1"} if how == "variable" else {}
    flag = ("--offline",) if how == "flag" else ()
    for arguments in (("export", REPO, "--out", tmp_path / "out"), ("run", STORY, "--model", "smolvlm-256m", "--yes")):
        assert_fails(command(*arguments, *flag, sockets=False, **more), 3, "cache")


def partly_filled(command: Command, name: str, lock: str = "", *, without: tuple[str, ...]) -> Path:
    """The cache as a program leaves it that fetched some files one by one."""
    folder = Path(command("models", "pull", name, lock=lock).stdout.strip())
    shutil.rmtree(folder.parents[1] / "trees")
    for file in without:
        (folder / file).unlink()
    return folder


def test_what_another_program_left_out_is_fetched(hub: Hub, command: Command, tmp_path: Path) -> None:
    partly_filled(command, REPO, without=("chat_template.json", "generation_config.json"))
    before = len(hub.bodies("model.safetensors"))
    result = command("export", REPO, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {"chat_template.json", "generation_config.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(hub.bodies("model.safetensors")) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_offline_half_a_cache_is_none(hub: Hub, command: Command, files: dict[str, bytes], name: str) -> None:
    partly_filled(command, REPO, without=(name,))
    result = command("models", "path", REPO, "--offline", sockets=False)
    assert_fails(result, 3, f"smol-edge models pull {REPO}")
    assert command("models", "pull", REPO).returncode == 0
    assert command("models", "path", REPO, "--offline").returncode == 0


def test_offline_a_cache_in_which_nothing_is_known_to_be_missing(hub: Hub, command: Command, tmp_path: Path) -> None:
    partly_filled(command, REPO, without=())
    result = command("export", REPO, "--out", tmp_path / "out", "--offline", sockets=False)
    assert result.returncode == 0, result.stderr


def test_a_missing_file_of_a_pinned_model_is_pulled(hub: Hub, command: Command, files: dict[str, bytes]) -> None:
    lock = pinned(hub, files)
    partly_filled(command, "tiny", lock, without=("tokenizer.json",))
    result = command("models", "verify", "tiny", lock=lock)
    assert_fails(result, 3, "smol-edge models pull tiny")
    assert command("models", "pull", "tiny", lock=lock).returncode == 0
    assert len(hub.bodies("model.safetensors")) == 1


def test_a_pull_of_what_is_here_needs_no_network(hub: Hub, command: Command) -> None:
    first = command("models", "pull", REPO)
    again = command("models", "pull", REPO, HF_HUB_OFFLINE="1", sockets=False)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr


def test_pickled_weights_are_refused_before_they_are_fetched(
    hub: Hub, command: Command, files: dict[str, bytes]
) -> None:
    hub.add("someone/old", {**{n: b for n, b in files.items() if n != "model.safetensors"}, "pytorch_model.bin": b"x"})
    for arguments in (("run", STORY, "--model", "someone/old", "--yes"), ("models", "pull", "someone/old")):
        assert_fails(command(*arguments), 1, "safetensors", "pickled")
    assert not hub.bodies("pytorch_model.bin")


# -- two at once, and a killed one -----------------------------------------------------------------


def test_two_processes_make_one_bundle(hub: Hub, start: Callable[..., Any], tmp_path: Path) -> None:
    hub.pause = 0.2
    arguments = ["run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "3"]
    both = [start(*arguments) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    (folder,) = bundle_folders(tmp_path)
    assert not folder.name.startswith(".")
    assert len(hub.bodies("model.safetensors")) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, "cut"])
def test_a_stopped_pull_goes_on_where_it_was(
    hub: Hub, start: Callable[..., Any], command: Command, files: dict[str, bytes], tmp_path: Path, how: object
) -> None:
    stall = 0.0 if how == "cut" else 60.0
    weights = r"/resolve/.*model\.safetensors"
    hub.faults = [
        Fault(weights, cut_after=HALF, stall=stall, method="GET"),
        Fault(weights, times=1000, status=500, method="GET"),
    ]
    process = start("models", "pull", REPO)
    if isinstance(how, signal.Signals):
        while not any(part.stat().st_size == HALF for part in (tmp_path / "hf").rglob("*.part")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, "cut": 1}[how], stderr
    assert "Traceback" not in stderr
    assert command("models", "path", REPO, "--offline").returncode == 3  # half of it is nothing
    hub.faults = []
    result = command("models", "pull", REPO)
    assert result.returncode == 0, result.stderr
    assert hub.bodies("model.safetensors")[-1] == f"bytes={HALF}-"
    folder = Path(result.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    blobs = {path.resolve() for path in folder.iterdir()}
    assert set((folder.parents[1] / "blobs").iterdir()) == blobs  # nothing is left of the first


def test_a_damaged_part_is_not_built_upon(hub: Hub, command: Command, tmp_path: Path) -> None:
    hub.faults = [
        Fault(r"model\.safetensors", cut_after=HALF, method="GET"),
        Fault(r"model\.safetensors", times=1000, status=500, method="GET"),
    ]
    assert command("models", "pull", REPO).returncode == 1
    (part,) = (tmp_path / "hf").rglob("*.part")
    part.write_bytes(bytes(HALF))  # what a power cut leaves
    hub.faults = []
    assert_fails(command("models", "pull", REPO), 1, "damaged", "repeat")
    assert command("models", "pull", REPO).returncode == 0


def test_what_a_killed_export_left_is_swept_up(hub: Hub, command: Command, tmp_path: Path) -> None:
    options = ("run", STORY, "--model", REPO, "--quant", "fp32", "--yes", "--max-tokens", "1")
    assert command(*options).returncode == 0
    (folder,) = bundle_folders(tmp_path)
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


def test_what_is_damaged_is_listed_and_removed(
    hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(REPO, sharded(files))
    lock = pinned(hub, sharded(files))
    folder = Path(command("models", "pull", "tiny", lock=lock).stdout.strip())
    (folder / "model.safetensors.index.json").resolve().write_bytes(b'{"weight')
    shutil.rmtree(folder.parents[1] / "trees")
    assert_fails(command("models", "pull", "tiny", lock=lock), 4, "smol-edge models rm tiny")
    assert command("models", "list", lock=lock).returncode == 0
    assert command("models", "rm", "tiny", lock=lock).returncode == 0
    assert not folder.exists()


def test_a_damaged_bundle_is_left_out_of_the_list(hub: Hub, command: Command, tmp_path: Path) -> None:
    assert command("run", STORY, "--model", REPO, "--yes", "--max-tokens", "1").returncode == 0
    (folder,) = bundle_folders(tmp_path)
    (folder / "bundle.json").write_text("{")
    result = command("models", "list", "--json")
    assert result.returncode == 0, result.stderr
    assert "damaged" in result.stderr
    assert json.loads(result.stdout)


@pytest.mark.parametrize("torn", ["bundle.json", "decoder.onnx"])
def test_a_torn_bundle_is_made_anew(hub: Hub, command: Command, tmp_path: Path, torn: str) -> None:
    options = ("run", STORY, "--model", REPO, "--quant", "fp32", "--max-tokens", "2", "--yes")
    first = command(*options)
    (folder,) = bundle_folders(tmp_path)
    (folder / torn).unlink()
    again = command(*options)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert "made anew" in again.stderr
    assert bundle_folders(tmp_path) == [folder]


def test_rm_removes_what_was_named_and_the_remains_of_it(
    hub: Hub, command: Command, files: dict[str, bytes], tmp_path: Path
) -> None:
    first = hub.repos[REPO][0]
    second = hub.add(REPO, {**files, "chat_template.json": files["chat_template.json"] + b"\n"}, keep=True)
    for commit in (first, second):
        run = command("run", STORY, "--model", f"{REPO}@{commit}", "--yes", "--max-tokens", "1")
        assert run.returncode == 0, run.stderr
    bundles = tmp_path / "smol" / "bundles"
    kept, removed = (
        next(path for path in bundle_folders(tmp_path) if commit[:12] in path.name) for commit in (second, first)
    )
    shutil.copytree(removed, removed.with_name(f".{removed.name}.0123abcd.partial"))
    assert command("models", "rm", f"{REPO}@{first}").returncode == 0
    assert bundle_folders(tmp_path) == [kept]
    assert not [path for path in bundles.iterdir() if first[:12] in path.name]
    assert command("models", "path", f"{REPO}@{second}", "--offline").returncode == 0
    assert command("models", "path", f"{REPO}@{first}", "--offline").returncode == 3


def test_rm_removes_half_a_download(hub: Hub, command: Command, tmp_path: Path) -> None:
    hub.faults = [
        Fault(r"model\.safetensors", cut_after=HALF, method="GET"),
        Fault(r"model\.safetensors", times=1000, status=500, method="GET"),
    ]
    assert command("models", "pull", REPO).returncode == 1
    assert [*(tmp_path / "hf").rglob("*.part")]
    assert command("models", "rm", REPO).returncode == 0
    assert not [*(tmp_path / "hf").rglob("*.part")]


def test_a_pull_request_gives_its_export_the_repository_s_name(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.refs[REPO, "refs/pr/1"] = hub.repos[REPO][0]
    result = smol_edge("export", f"{REPO}@refs/pr/1", "--quant", "fp32", patch=PATCH, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "tiny-vlm-fp32"


def test_lock_prints_an_entry_with_the_hashes_of_what_came(command: Command, hub: Hub, files: dict[str, bytes]) -> None:
    lock = pinned(hub, {})
    pulled = command("models", "pull", "tiny", lock=lock)
    assert pulled.returncode == 0, pulled.stderr
    Path(pulled.stdout.strip(), "README.md").write_text("of another program")
    entry = tomllib.loads(command("models", "lock", "tiny", lock=lock).stdout)["tiny"]
    assert (entry["repo"], entry["revision"]) == (REPO, hub.repos[REPO][0])
    assert {n: f["sha256"] for n, f in entry["files"].items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in files.items()
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [("smolvlm256m", "did you mean smolvlm-256m"), ("./nothing", "no folder"), ("a/b/c", "no model's name")]
    + [(name, "no model's name") for name in ("foo--bar/baz", "foo/bar.git", "foo/bar..x", "foo/bar@../x", "foo/-x")],
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
