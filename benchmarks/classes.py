"""The table per class of processor in docs/engines.md, from the results that compare.py --keep left in results/.

    python benchmarks/classes.py            # writes the table between its marks in docs/engines.md
    python benchmarks/classes.py --check    # fails if the page shows another one

A class is a row of the table in smolvlm_edge/graphs/choice.py, and has one file: the latest run counts.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measuring import Run, median
from tables import PICTURE, columns, number

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
BEGIN, END = "<!-- classes: written by benchmarks/classes.py -->", "<!-- end of classes -->"
SHOWN = ("encode one tile s", "prefill tok/s", "time to first token s", "decode tok/s", "peak RSS MB")
NONE_YET = "No result is kept yet: `python benchmarks/compare.py ... --keep` on a quiet machine makes the first."


def keep(report: Path, results: Path = RESULTS) -> Path:
    """Let a report of compare.py be the one of its class; returns the file."""
    text = report.read_text(encoding="utf-8")
    kept = results / f"{_slug(json.loads(text)['machine']['class'])}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(text, encoding="utf-8")
    return kept


def table(reports: Iterable[dict[str, Any]]) -> str:
    """A row for every system of every class: medians."""
    values = {heading: value for heading, _, value in columns([])}
    lines = [f"| processor | | {' | '.join(SHOWN)} |", f"|---|---|{'---:|' * len(SHOWN)}"]
    notes = []
    for report in sorted(reports, key=lambda report: str(report["machine"]["class"])):
        machine, asked = report["machine"], report["asked"]
        for name, system in report["systems"].items():
            if runs := system["questions"].get(PICTURE):
                cells = [number(_median(runs, values[heading])) for heading in SHOWN]
                lines.append(f"| {machine['class']} | {name} | {' | '.join(cells)} |")
        notes.append(
            f"- {machine['class']}: {machine['processor']}, {asked['threads']} threads, {asked['picture']}, medians of "
            f"{asked['runs']} runs, {machine['date'][:10]}"
        )
    return "\n".join([*lines, "", *notes]) if notes else NONE_YET


def written(page: str, content: str) -> str:
    """The page with that between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def _median(runs: list[Run], value: Callable[[Run], float | None]) -> float | None:
    return median([{"": value(run)} for run in runs], "")


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> None:
    """Read the results, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is an older one")
    options = parser.parse_args()
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    page = PAGE.read_text(encoding="utf-8")
    new = written(page, table(reports))
    if options.check:
        sys.exit(new != page and f"{PAGE.name} shows older results: python benchmarks/classes.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
