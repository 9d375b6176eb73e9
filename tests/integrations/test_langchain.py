"""LangChain's own tests of chat models, and ours, where `pip install 'smol-edge[langchain]'` was done."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.integrations


def test_a_chat_model_as_langchain_wants_it(environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment("langchain", ".[langchain]", "langchain-tests")
    program = Path(__file__).with_name("langchain_model.py")
    # none of this project's settings and fixtures, which need more than is installed there
    settings = ["-c", os.devnull, "--rootdir", str(tmp_path), "--noconftest", "-o", "asyncio_mode=auto"]
    command = [str(python), "-m", "pytest", *settings, "-p", "no:cacheprovider", "--benchmark-disable", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
