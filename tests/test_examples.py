"""Every program in examples/ prints what its docstring says, wherever it is started and without a network."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_privacy import die_on_any_socket, linux_only

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "make.py")  # that one draws the pictures


def promised(program: Path) -> str:
    """The indented lines of its docstring, which follow "It prints"."""
    docstring = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
    return textwrap.dedent("\n".join(line for line in docstring.splitlines() if line.startswith("    ")))


def test_the_programs_are_there_and_short() -> None:
    assert {"astream", "batch", "chat", "stream", "video"} <= {path.stem for path in PROGRAMS}
    for program in PROGRAMS:
        body = ast.parse(program.read_text(encoding="utf-8")).body[1:]
        lines = sum(node.end_lineno - node.lineno + 1 for node in body if node.end_lineno)
        assert lines <= 20, f"{program.name} is an example of one thing"


@linux_only
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_prints_what_it_promises(program: Path, tmp_path: Path) -> None:
    assert promised(program), f"{program.name} says in its docstring, indented, what it prints"
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    result = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
        preexec_fn=die_on_any_socket,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.rstrip("\n") == promised(program)
    assert list(tmp_path.iterdir()) == []
