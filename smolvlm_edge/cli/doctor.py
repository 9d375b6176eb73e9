"""`smol-edge doctor`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from smolvlm_edge.diagnosis import Diagnosis, Found, examine


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what this machine offers, which models are here, what would run them and why, and what is missing.

    Example: smol-edge doctor
    """
    found = examine()
    if as_json:
        print(json.dumps(asdict(found)))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for title, lines in _paragraphs(found).items():
        for number, line in enumerate(lines):
            console.print(f"{'' if number else title:<11} {line}")


def _paragraphs(found: Diagnosis) -> dict[str, list[str]]:
    versions = [f"{name} {version or '– not installed'}" for name, version in found.versions.items()]
    cores = f"{found.threads} threads by default: the full cores that this process may use (of {found.processors})"
    return {
        "system": [f"{found.system}, Python {found.python}"],
        "processor": [
            f"{found.processor}: {', '.join(found.features) or 'none of the instructions that matter'}",
            cores,
        ],
        "memory": [f"{_gigabytes(found.memory_bytes)}, {_gigabytes(found.free_memory_bytes)} of it free"],
        "versions": [", ".join(versions)],
        "engines": [f"{name}: {state}" for name, state in found.engines.items()],
        "auto": [found.auto],
        "folders": [f"{purpose}: {folder}" for purpose, folder in found.folders.items()],
        "models": [line for model in found.models for line in _model(model)] or ["none"],
        "to do": [f"{fix.problem}: {fix.command}" for fix in found.fixes] or ["nothing is missing"],
    }


def _model(model: Found) -> list[str]:
    if model.engines is None:
        return [f"{model.name}: {model.state}"]
    picks = [f"  {half} on {pick['engine']}: {pick['why']}" for half, pick in model.engines.items()]
    if model.parallel is not None:
        picks.append(f"  --parallel auto: {model.parallel['count']} at once: {model.parallel['why']}")
    return [f"{model.name}: {model.state}", *picks]


def _gigabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"
