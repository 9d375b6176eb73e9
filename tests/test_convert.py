"""`smol-edge convert`: a PDF's pages through a tiny granite-docling, and what becomes of DocTags."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from command import assert_fails, smol_edge
from family import write_checkpoint
from PIL import Image

from smolvlm_edge import RequestError
from smolvlm_edge.documents import assemble, draw_pages, page_count, read_numbers
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES

TABLE = (
    "<doctag><section_header_level_1><loc_10><loc_10><loc_200><loc_30>Results</section_header_level_1>\n"
    "<otsl><loc_40><loc_100><loc_400><loc_200><ched>year<ched>sold<nl><fcel>2024<fcel>17<nl></otsl></doctag>"
)
TEXT = "<doctag><text><loc_40><loc_20><loc_400><loc_60>A page of text.</text></doctag>"


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers by chance, and with DocTags among what it says."""
    folder = tmp_path_factory.mktemp("granite")
    checkpoint = write_checkpoint(folder / "checkpoint", "granite-docling-258M")
    return export_checkpoint(checkpoint, folder / "bundle", RECIPES["fp32"])


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    """Three pages of different sizes, in points."""
    document = pypdfium2.PdfDocument.new()
    for width in (100, 200, 300):
        document.new_page(width, 150)
    path = tmp_path / "three.pdf"
    document.save(path)
    return path


def convert(*arguments: str | Path, patch: str = "") -> subprocess.CompletedProcess[str]:
    return smol_edge("convert", *arguments, "--max-tokens", "8", patch=patch)


def test_doctags_become_markdown_html_and_json() -> None:
    pages = [(TEXT, Image.new("RGB", (300, 400))), (TABLE, Image.new("RGB", (300, 400)))]
    markdown = assemble("paper", pages, "markdown")
    assert markdown.startswith("A page of text.\n\n## Results\n")
    assert [cell.strip() for cell in markdown.splitlines()[-1].split("|")[1:-1]] == ["2024", "17"]
    assert "<td>17</td>" in assemble("paper", pages, "html")
    document = json.loads(assemble("paper", pages, "json"))
    assert document["name"] == "paper"
    assert [text["text"] for text in document["texts"]] == ["A page of text.", "Results"]
    assert [*document["pages"]] == ["1", "2"]


def test_pages_are_drawn_at_144_dots_per_inch_and_bounded(pdf: Path, tmp_path: Path) -> None:
    assert page_count(pdf) == 3
    assert [page.size for page in draw_pages(pdf, [1, 3])] == [(200, 300), (600, 300)]
    plan = pypdfium2.PdfDocument.new()
    plan.new_page(14_000, 7_000)
    plan.save(tmp_path / "plan.pdf")
    (page,) = draw_pages(tmp_path / "plan.pdf", [1])
    assert page.size == (8192, 4096)
    assert np.asarray(page).min() == 255  # paper is white, not black


@pytest.mark.parametrize(
    ("text", "numbers"), [("1-", [1, 2, 3]), ("2", [2]), ("2-3", [2, 3]), ("3,1-2", [1, 2, 3]), ("-2", [1, 2])]
)
def test_page_numbers(text: str, numbers: list[int]) -> None:
    assert read_numbers(text, 3) == numbers


@pytest.mark.parametrize("text", ["", "0", "4", "3-2", "one", "1-9", "²"])
def test_pages_that_are_none(text: str) -> None:
    with pytest.raises(RequestError, match="pages"):
        read_numbers(text, 3)


def test_writes_a_document_beside_the_pdf(pdf: Path, granite: Path) -> None:
    result = convert(pdf, "--model", granite, "--to", "doctags", "--pages", "1-2")
    assert result.returncode == 0, result.stderr
    out = pdf.with_suffix(".doctags")
    assert result.stdout.strip() == str(out)
    assert len(out.read_text(encoding="utf-8")) > 2
    assert sorted(path.name for path in pdf.parent.iterdir()) == ["three.doctags", "three.pdf"]
    assert_fails(convert(pdf, "--model", granite, "--to", "doctags"), 2, "exists", "--force")


def test_goes_on_where_it_was_stopped(pdf: Path, granite: Path) -> None:
    slow = "import time; from smolvlm_edge import documents as d; draw = d.draw_pages\n"
    slow += "def slowly(path, numbers):\n    for page in draw(path, numbers): yield page; time.sleep(3)\n"
    slow += "d.draw_pages = slowly\n"
    program = f"import sys\n{slow}from smolvlm_edge.cli import main\nmain()"
    options = ["convert", str(pdf), "--model", str(granite), "--to", "doctags", "--max-tokens", "8"]
    process = subprocess.Popen([sys.executable, "-c", program, *options], stderr=subprocess.PIPE, text=True)
    pages = pdf.with_name(".three.doctags.pages.jsonl")
    while process.poll() is None and (not pages.exists() or len(pages.read_bytes().splitlines()) < 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    read = pages.read_bytes().splitlines()[1:]
    assert read
    assert not pdf.with_suffix(".doctags").exists()
    counted = "from smolvlm_edge import documents as d; draw = d.draw_pages\n"
    counted += (
        "d.draw_pages = lambda path, numbers: (print('drawn', numbers, file=sys.stderr), draw(path, numbers))[1]\n"
    )
    result = convert(pdf, "--model", granite, "--to", "doctags", patch=counted)
    assert result.returncode == 0, result.stderr
    assert f"drawn {[1, 2, 3][len(read) :]}" in result.stderr
    assert not pages.exists()


def test_a_page_that_fails_does_not_stop_the_others(pdf: Path, granite: Path) -> None:
    broken = "from smolvlm_edge import documents as d; draw = d.draw_pages\n"
    broken += "d.draw_pages = lambda path, numbers: (p if p.width != 400 else b'' for p in draw(path, numbers))\n"
    result = convert(pdf, "--model", granite, "--to", "doctags", patch=broken)
    assert result.returncode == 6
    assert "1 of 3 pages failed (page 2)" in result.stderr.splitlines()[-1]
    assert pdf.with_suffix(".doctags").exists()


def test_what_is_no_pdf(tmp_path: Path, granite: Path) -> None:
    (tmp_path / "no.pdf").write_bytes(b"%PDF-1.7 no")
    assert_fails(convert(tmp_path / "no.pdf", "--model", granite), 5, "no.pdf", "damaged")
    assert_fails(convert(tmp_path / "missing.pdf", "--model", granite), 5, "no such file")
    assert_fails(convert(tmp_path, "--model", granite), 5, "not a folder")
