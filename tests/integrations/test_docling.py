"""Docling itself with a bundle: pages and pictures, where torch is installed and where it is not."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from family import write_checkpoint

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES

pytestmark = pytest.mark.integrations
HERE = Path(__file__).parent
SHAPES = HERE.parents[1] / "examples" / "shapes.png"
ENVIRONMENTS: dict[str, Sequence[str]] = {
    "docling": (".[docling]", "docling-slim[format-html]", "reportlab"),
    "docling-torch": (".[docling]", "docling-slim[format-html]", "reportlab", "torch==2.13.0"),
}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def python(request: pytest.FixtureRequest, environment: Callable[..., Path]) -> Path:
    return environment(request.param, *ENVIRONMENTS[request.param])


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny granite-docling: its answers are chance, but each page has one of its own."""
    folder = tmp_path_factory.mktemp("granite")
    return export_checkpoint(
        write_checkpoint(folder / "checkpoint", "granite-docling-258M"), folder / "bundle", RECIPES["fp32"]
    )


def run(python: Path, program: str, *arguments: object) -> Any:
    command = [str(python), str(HERE / program), *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("parallel", [1, 3])
def test_pages_arrive_in_order_with_what_the_model_says_of_each(python: Path, granite: Path, parallel: int) -> None:
    report = run(python, "docling_pages.py", granite, "--parallel", parallel)
    assert report["pages"] == [1, 2, 3]
    assert len({*report["texts"]}) == 3
    assert report["texts"] == report["alone"]
    assert any("<" in text for text in report["texts"])  # special tokens: without them Docling sees nothing, in silence
    # the second page's answer ends by itself; a page that was cut off makes the document a partial one, by name
    assert report["stop_reasons"] == ["length", "end_of_sequence", "length"]
    assert report["status"] == "partial_success"
    assert [page for page, _ in report["errors"]] == [1, 3]


def test_a_page_that_fails_is_named_and_the_others_are_read(python: Path, granite: Path) -> None:
    report = run(python, "docling_pages.py", granite, "--fail", 2)
    assert report["status"] == "partial_success"
    assert [2, "VLM inference failed: the page cannot be read."] in report["errors"]
    assert [bool(text) for text in report["texts"]] == [True, False, True]


def test_a_figure_is_described(python: Path) -> None:
    report = run(python, "docling_pictures.py", SHAPES)
    ((text, by),) = report["said"]
    assert text.startswith("The picture shows a large red circle at the top left, a small blue star in the middle")
    assert by == "smol-edge: demo"


def test_torch_is_not_imported_where_it_is_not_installed(python: Path) -> None:
    if "torch" not in str(python):
        assert run(python, "docling_pictures.py", SHAPES)["heavy"] == []
