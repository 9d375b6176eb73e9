"""An export that is stopped leaves nothing behind, or what the next one sweeps up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES

WAITING = """
import signal, sys, time
from smolvlm_edge.cli import main
from smolvlm_edge.export import pipeline
def wait(*_): print("building", flush=True); time.sleep(600)
pipeline.build_graphs = wait
sys.argv = ["smol-edge", "export", sys.argv[1], "--quant", "fp32", "--out", sys.argv[2]]
main()
"""


def waiting_export(checkpoint: Path, out: Path) -> subprocess.Popen[str]:
    """An export that has begun, and waits."""
    command = [sys.executable, "-c", WAITING, str(checkpoint), str(out)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "building\n"
    return run


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
@pytest.mark.parametrize(("name", "exit_code"), [("SIGHUP", 129), ("SIGTERM", 143)])
def test_a_closed_terminal_leaves_nothing(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, name: str, exit_code: int
) -> None:
    with waiting_export(tiny_checkpoints["tiny-idefics3"], tmp_path / "deep" / "out") as run:
        run.send_signal(getattr(signal, name))
        assert run.wait(60) == exit_code
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(os.name == "nt", reason="a killed process of Windows leaves no lock to try")
def test_what_a_killed_export_left_is_swept_and_what_lives_is_not(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoints["tiny-idefics3"]
    with (
        waiting_export(checkpoint, tmp_path / "killed") as killed,
        waiting_export(checkpoint, tmp_path / "alive") as alive,
    ):
        killed.kill()
        killed.wait(60)
        left = {path.name.split(".")[1] for path in tmp_path.iterdir()}
        assert left == {"killed", "alive"}
        export_checkpoint(checkpoint, tmp_path / "next", RECIPES["fp32"])
        left = {path.name.split(".")[1] for path in tmp_path.iterdir() if path.name.startswith(".")}
        assert left == {"alive"}
        alive.terminate()
        alive.wait(60)
    assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_a_bundle_that_was_moved_aside_comes_back(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """As after a kill between the two renames of --force."""
    checkpoint, out = tiny_checkpoints["tiny-idefics3"], tmp_path / "out"
    export_checkpoint(checkpoint, out, RECIPES["fp32"])
    out.rename(tmp_path / ".out.replaced")
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoint, out, RECIPES["fp32"], force=True, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
