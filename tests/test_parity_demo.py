"""The demonstration model against transformers: the same reply, word for word, to held-out questions of every kind."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import smol_edge

pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

ROOT = Path(__file__).parent.parent
QUESTIONS = 80


def test_transformers_gives_the_same_replies(tmp_path: Path) -> None:
    checkpoint, bundle, replies = ROOT / "demo" / "checkpoint", tmp_path / "fp32", tmp_path / "replies.jsonl"
    exported = smol_edge("export", checkpoint, "--quant", "fp32", "--out", bundle)
    assert exported.returncode == 0, exported.stderr
    ours = smol_edge("eval", "--model", bundle, "--limit", QUESTIONS, "--results", replies)
    assert ours.returncode == 0, ours.stderr
    program = ROOT / "benchmarks" / "eval_transformers.py"
    command = [sys.executable, program, checkpoint, "--limit", str(QUESTIONS), "--results", replies]
    theirs = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"{QUESTIONS} of {QUESTIONS} replies are the same" in theirs.stdout, theirs.stderr + theirs.stdout
