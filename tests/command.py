"""Runs the `smol-edge` command the way a user does: in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any


def smol_edge(*arguments: str | Path, patch: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command; `patch` is Python code that is executed just before, to stage an accident."""
    program = f"import sys\n{patch}\nfrom smolvlm_edge.cli import main\nmain()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def assert_fails(result: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """One line on stderr that says what is wrong, the documented exit code, no traceback."""
    assert result.returncode == exit_code, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
