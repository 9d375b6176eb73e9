"""A run opens no socket and leaves nothing outside the folders it was given."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from command import smol_edge
from PIL import Image

SOCKET_SYSCALL = {"x86_64": 41, "aarch64": 198}.get(platform.machine())
CONNECT_SYSCALL = {"x86_64": 42, "aarch64": 203}.get(platform.machine())
linux_only = pytest.mark.skipif(sys.platform != "linux" or SOCKET_SYSCALL is None, reason="needs seccomp")


def die_on_any_socket() -> None:
    """From here on the kernel kills this process the moment that it, or any library in it, makes a socket."""
    die_on(SOCKET_SYSCALL)


def die_on_any_connection() -> None:
    """As above, but sockets may be made: urllib3 makes one when it is imported, to see whether there is IPv6."""
    die_on(CONNECT_SYSCALL)


def die_on(system_call: int | None) -> None:

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    load, jump_if_equal, give_back = 0x20, 0x15, 0x06
    kill_process, allow = 0x80000000, 0x7FFF0000
    instructions = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # the system call's number
            (jump_if_equal, 0, 1, system_call),
            (give_back, 0, 0, kill_process),
            (give_back, 0, 0, allow),
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(set_seccomp, filter_mode, ctypes.byref(Program(4, instructions))) == 0


@linux_only
def test_the_guard_would_notice_a_socket() -> None:
    program = "import socket; socket.socket(socket.AF_INET)"
    assert subprocess.run([sys.executable, "-c", program], preexec_fn=die_on_any_socket, check=False).returncode < 0


@linux_only
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("command", ["run", "describe", "video", "export"])
def test_no_socket_and_nothing_left_at_home(
    tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path, command: str, target: str
) -> None:
    bundle = tiny_bundle("tiny-idefics3", "int4", target)
    folders = {name: tmp_path / name for name in ("home", "work", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    Image.fromarray(np.zeros((70, 100, 3), np.uint8)).save(tmp_path / "picture.png")
    arguments = {
        "run": ("run", tmp_path / "picture.png", "describe", "--model", bundle, "--max-tokens", "4"),
        "describe": ("describe", tmp_path, "--out", tmp_path / "out.jsonl", "--model", bundle, "--max-tokens", "4"),
        "video": ("run", write_clip(tmp_path / "clip.mp4"), "describe", "--model", bundle, "--max-tokens", "4"),
        "export": ("export", tiny_checkpoints["tiny-idefics3"], "--target", target, "--out", tmp_path / "out"),
    }[command]
    before = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = kept | {"HOME": str(folders["home"]), "TMPDIR": str(folders["temporary"])}
    result = smol_edge(*arguments, env=environment, cwd=folders["work"], preexec_fn=die_on_any_socket)
    assert result.returncode == 0, (result.returncode, result.stderr)
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == before


def test_telemetry_is_off_before_the_engine_is_imported() -> None:
    """Even where somebody switched it on: the variable must be set when onnxruntime's library is loaded."""
    program = """
import builtins, os
original = builtins.__import__
def watch(name, *arguments, **options):
    if name == "onnxruntime":
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
        print("imported")
    return original(name, *arguments, **options)
builtins.__import__ = watch
import smolvlm_edge.graphs.onnxruntime
"""
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "imported" in result.stdout


def import_openvino(module: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Import it in a process of its own that knows nothing but its home, where the telemetry would show."""
    program = f"""
import {module}, openvino
assert openvino.convert_model  # an application that imports it afterwards has all of it
import openvino_telemetry  # and may use this as it likes
"""
    command = [sys.executable, "-c", program]
    options = {"env": {"HOME": str(home)}, "preexec_fn": die_on_any_socket}
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@linux_only
def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("left to itself", "ours")]
    for home in homes:
        home.mkdir()
    import_openvino("openvino", homes[0])
    assert list(homes[0].rglob("openvino_ga*")), "if it leaves no identity of its own accord, this test cannot fail"
    result = import_openvino("smolvlm_edge.graphs.openvino", homes[1])
    assert result.returncode == 0, result.stderr
    assert list(homes[1].iterdir()) == []


def test_importing_the_package_imports_no_engine() -> None:
    program = """
import sys
import smolvlm_edge, smolvlm_edge.cli
libraries = {"av", "onnxruntime", "openvino", "onnx_ir", "onnx", "safetensors", "torch", "transformers"}
heavy = libraries | {"smolvlm_edge.export"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_library_imports_no_network_and_no_event_loop() -> None:
    """What an application does not use does not slow its start."""
    program = """
import sys
import smolvlm_edge
late = {"asyncio", "http.client", "huggingface_hub", "onnxruntime", "openvino", "rich", "typer", "urllib.request"}
assert not late & set(sys.modules), late & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
