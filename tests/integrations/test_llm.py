"""`llm` itself, with the plug-in that `pip install 'smol-edge[llm]'` brings."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.integrations
EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPES = "The picture shows a large red circle at the top left, a small blue star in the middle"
ASK_ASYNC = """
import asyncio, llm
async def main():
    model = llm.get_async_model("smol-edge/demo")
    response = model.prompt("describe", attachments=[llm.Attachment(path="shapes.png")])
    pieces = [piece async for piece in response]
    usage = await response.usage()
    print(len(pieces) > 1, "".join(pieces), usage.input > 0, usage.output > 0)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def ask(environment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run llm in the folder of the examples, with a home of its own."""
    python = environment("llm", ".[llm]")
    home = tmp_path_factory.mktemp("llm")

    def run(*arguments: str) -> str:
        variables = {**os.environ, "LLM_USER_PATH": str(home), "SMOL_EDGE_HOME": str(home)}
        command = [str(python), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES, env=variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return run


def test_the_demonstration_model_is_among_its_models(ask: Callable[..., str]) -> None:
    assert "smol-edge: smol-edge/demo" in ask("-m", "llm", "models").splitlines()


def test_describes_an_attachment(ask: Callable[..., str]) -> None:
    assert ask("-m", "llm", "-m", "smol-edge/demo", "-a", "shapes.png", "describe").startswith(SHAPES)


def test_an_answer_has_the_schema_that_was_asked_for(ask: Callable[..., str]) -> None:
    schema = {
        "type": "object",
        "properties": {"circle": {"enum": ["red", "blue"]}, "star": {"enum": ["red", "blue"]}},
        "required": ["circle", "star"],
        "additionalProperties": False,
    }
    said = ask("-m", "llm", "-m", "smol-edge/demo", "-a", "shapes.png", "describe", "--schema", json.dumps(schema))
    assert json.loads(said).keys() == {"circle", "star"}


def test_a_conversation_goes_on_with_its_pictures(ask: Callable[..., str]) -> None:
    pictures = ["-a", "before.png", "-a", "after.png"]
    changed = "The star changed from blue to orange."
    assert ask("-m", "llm", "-m", "smol-edge/demo", *pictures, "What changed?") == changed
    assert ask("-m", "llm", "--continue", "What changed?") == changed  # from its log: the pictures are still there


def test_an_event_loop_gets_pieces_and_usage(ask: Callable[..., str]) -> None:
    said = ask("-c", ASK_ASYNC)
    assert said.startswith(f"True {SHAPES}")
    assert said.endswith("True True")


def test_options_are_those_of_generate(ask: Callable[..., str]) -> None:
    said = ask("-m", "llm", "-m", "smol-edge/demo", "-a", "shapes.png", "describe", "-o", "max_tokens", "3")
    assert SHAPES.startswith(said)
    assert len(said) < 20
