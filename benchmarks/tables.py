"""A comparison's JSON as a Markdown table: medians, and below them how far runs were apart."""

from collections.abc import Callable
from typing import Any

from measuring import Run, median, spread

PICTURE = "picture"
Cell = tuple[str, str, Callable[[Run], float | None]]


def _rate(tokens: str, milliseconds: str) -> Callable[[Run], float | None]:
    return lambda run: run[tokens] / run[milliseconds] * 1000 if run[tokens] and run[milliseconds] else None


def _part(field: str, divisor: float) -> Callable[[Run], float | None]:
    return lambda run: None if run.get(field) is None else run[field] / divisor


def _tile(run: Run) -> float | None:
    return run["vision_ms"] / run["tiles"] / 1000 if run["vision_ms"] and run["tiles"] else None


def columns(depths: list[int]) -> list[Cell]:
    """Heading, the question that it is about, and the value of a run."""
    of_picture: list[tuple[str, Callable[[Run], float | None]]] = [
        ("load s", _part("load_ms", 1000)),
        ("preprocess s", _part("preprocess_ms", 1000)),
        ("encode one tile s", _tile),
        ("prefill tok/s", _rate("prompt_tokens", "prefill_ms")),
        ("time to first token s", _part("ttft_ms", 1000)),
        ("second question s", _part("second_ttft_ms", 1000)),
        ("decode tok/s", _part("decode_tokens_per_s", 1)),
    ]
    of_depth = [(f"… at {depth:,}", f"depth {depth}", _part("decode_tokens_per_s", 1)) for depth in depths]
    of_process = [
        ("peak RSS MB", _part("peak_rss_bytes", 1e6)),
        ("processor s", _part("cpu_s", 1)),
        ("energy J", _part("energy_j", 1)),
    ]
    return [
        *((heading, PICTURE, value) for heading, value in of_picture),
        *of_depth,
        *((heading, PICTURE, value) for heading, value in of_process),
    ]


def table(report: dict[str, Any]) -> str:
    """The document."""
    cells = columns(report["asked"]["depths"])
    headings = [heading for heading, *_ in cells]
    lines = [_about(report), "", f"| | {' | '.join(headings)} | disk MB |", f"|---|{'---:|' * (len(cells) + 1)}"]
    spreads = [f"| smallest – largest | {' | '.join(headings)} |", f"|---|{'---:|' * len(cells)}"]
    for name, system in report["systems"].items():
        if not system["questions"]:
            continue
        values = [[{"": value(run)} for run in system["questions"].get(question, [])] for _, question, value in cells]
        medians = [number(median(each, "")) for each in values]
        lines.append(f"| {name} | {' | '.join(medians)} | {system['bytes_on_disk'] / 1e6:.0f} |")
        ranges = [" – ".join(map(number, spread(each, "") or ())) or number(None) for each in values]
        spreads.append(f"| {name} | {' | '.join(ranges)} |")
    lines += ["", *spreads, ""]
    if report["failed"]:
        lines += ["Not in the table:", "", *(f"- {name}: {reason}" for name, reason in report["failed"].items()), ""]
    lines += ["Versions:", "", *(f"- {name}: {_versions(system)}" for name, system in _answered(report).items()), ""]
    return "\n".join(lines)


def _about(report: dict[str, Any]) -> str:
    asked, machine = report["asked"], report["machine"]
    load = f", beside {asked['busy']} other busy process(es)" if asked["busy"] else ""
    shapes = sorted(
        {
            f"{run['tiles']} tiles, {run['prompt_tokens']} prompt tokens, {run['generated_tokens']} generated"
            for system in report["systems"].values()
            for run in system["questions"].get(PICTURE, [])
        }
    )
    return (
        f"{machine['processor']}, {machine['class']} ({', '.join(machine['extensions'])}), {machine['cores']} cores, "
        f"{asked['threads']} threads{load}; {machine['system']}, Python {machine['python']}, {machine['date']}. "
        f"{asked['picture']}: {'; '.join(shapes)}. Medians of {asked['runs']} runs taken in turns; "
        f"… at N: decoding after a text of N tokens. Energy: {machine.get('energy', 'of all processor packages')}."
    )


def _answered(report: dict[str, Any]) -> dict[str, Any]:
    return {name: system for name, system in report["systems"].items() if system["questions"]}


def _versions(system: dict[str, Any]) -> str:
    run = next(iter(system["questions"].values()))[0]
    return ", ".join(f"{name} {version}" for name, version in run["versions"].items())


def number(value: float | None) -> str:
    """A cell; a dash for what a system does not tell."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
