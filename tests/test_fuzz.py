"""A few damaged inputs for every parser; `make fuzz` reads more of them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_nothing_foreign_comes_of_damaged_inputs() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "480", "--seed", "7"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" 0 findings") == len(list((ROOT / "tests" / "fuzz" / "parsers").glob("[a-z]*.py")))
