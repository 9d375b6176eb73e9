"""Pages keep what they promise: commands and programs on them run, links lead somewhere, the reference is no older one.

A block of `sh` or `python` is run, but for what it installs, in a folder with `examples/` in it and with the
demonstration model, unless a comment before it says why not: `<!-- not run: needs the hub -->`.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm_edge import errors

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: .+ -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
REASONS = {
    "needs the hub",
    "needs a large model",
    "makes an environment",
    "installs",
    "takes hours",
    "a part of a program",
    "needs optimum-intel",
    "another program",  # tests/test_clients.py runs it in an environment that has it
    "needs VLMEvalKit",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks() -> list[tuple[str, str, str]]:
    """Page, language and text of what is to be run; the commands of CONTRIBUTING.md are what .ci/run runs."""
    found = [
        (name_of(page), block["language"], installed(block["text"]))
        for page in PAGES
        if page.name != "CONTRIBUTING.md"
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if not block["skip"]
    ]
    return [each for each in found if each[-1].strip()]


def installed(text: str) -> str:
    """A block without the lines that install, for an environment where that is done."""
    lines = [line for line in text.splitlines(keepends=True) if "pip install" not in line]
    return "".join(lines).replace(".venv/bin/", "")


BLOCKS = blocks()


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder as a reader stands in: `examples/`, and `smol-edge` on the path."""
    shutil.copytree(ROOT / "examples", tmp_path / "work" / "examples", ignore=shutil.ignore_patterns("desktop"))
    command = tmp_path / "bin" / "smol-edge"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m smolvlm_edge.cli \"$@\"\n", encoding="utf-8")
    command.chmod(0o755)
    return tmp_path / "work"


@pytest.mark.skipif(os.name == "nt", reason="the blocks are for a Unix shell")
@pytest.mark.parametrize(
    ("page", "language", "text"), BLOCKS, ids=[f"{page}-{n}" for n, (page, *_) in enumerate(BLOCKS)]
)
def test_what_a_page_shows_runs(workplace: Path, page: str, language: str, text: str) -> None:
    program = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    environment = {
        **os.environ,
        "PATH": f"{workplace.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }
    result = subprocess.run(
        program, cwd=workplace, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_every_reason_not_to_run_a_block_is_one_of_a_few() -> None:
    said = {reason for page in PAGES for reason in re.findall(r"<!-- not run: (.+) -->", page.read_text("utf-8"))}
    assert said <= REASONS


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target
        if page.is_relative_to(DOCS):
            assert place.resolve().is_relative_to(DOCS), f"{target} is no part of the site"


def test_the_site_shows_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown = re.findall(r"^ +- (?:\w+: )?([\w/-]+\.md)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_command_reference_is_what_help_says() -> None:
    rendered = runpy.run_path(str(DOCS / "commands.py"))["render"]()
    assert (DOCS / "reference" / "commands.md").read_text(encoding="utf-8") == rendered, "python docs/commands.py"


def test_pictures_are_those_that_the_commands_drew() -> None:
    for copy in (DOCS / "images").iterdir():
        if copy.suffix not in {".svg", ".png"}:
            continue
        folders = (ROOT / "benchmarks", ROOT / "examples", ROOT / "examples" / "desktop")
        (original,) = (folder / copy.name for folder in folders if (folder / copy.name).is_file())
        assert copy.read_bytes() == original.read_bytes(), f"cp {original} {copy}"


def test_the_table_of_errors() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| (\d) \| (\d+) \|$", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE)
    classes = {name: value for name, value in vars(errors).items() if name.endswith("Error")}
    assert {(name, value.exit_code, value.status) for name, value in classes.items()} == {
        (name, int(exit_code), int(status)) for name, exit_code, status in rows
    }


def test_the_readme_is_short_and_tells_what_a_photo_costs() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("--detail auto" in line for line in lines[:20])
