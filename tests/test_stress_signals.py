"""Ctrl-C at any moment of a start: a word and an exit code, never a traceback and no advice to install anything."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress
PROGRAM = "from smolvlm_edge.cli import main\nprint('begun', flush=True)\nmain()"
"""What comes before is Python's own start, of which it tells by a traceback of its own."""
STARTS = 40
LONGEST_S = 1.2


@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_at_any_moment_of_a_start(name: str, exit_code: int, tiny_bundle, tmp_path: Path) -> None:
    picture = Path(__file__).parent.parent / "examples" / "shapes.png"
    command = [sys.executable, "-c", PROGRAM, "run", picture, "describe", "--model", tiny_bundle(), "--max-tokens", "2"]
    outcomes: Counter[tuple[int, str]] = Counter()
    for start in range(1, STARTS + 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(start * LONGEST_S / STARTS)
            process.send_signal(getattr(signal, name))
            _, err = process.communicate(timeout=60)
        outcomes[process.returncode, err] += 1
    print(name, outcomes)
    word = "interrupted\n" if name == "SIGINT" else ""
    assert outcomes[exit_code, word] > STARTS // 8
    whole = "note: the answer was cut off after 2 tokens: --max-tokens N allows more\n"
    for code, err in outcomes:
        if (code, err) != (exit_code, word):  # it came after the answer; at the very end Python heeds signals no more
            assert code in {0, exit_code, -getattr(signal, name)}
            assert err in {"", whole, whole + word}
