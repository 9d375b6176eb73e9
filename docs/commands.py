"""Writes docs/reference/commands.md from the commands themselves; a test fails where the page is an older one.

python docs/commands.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from smolvlm_edge.cli.commands import app

PAGE = Path(__file__).parent / "reference" / "commands.md"
HEAD = """# Command reference

Written by `python docs/commands.py` from what `smol-edge --help` says.
"""


def render() -> str:
    """The page."""
    return "\n".join([HEAD, *section("smol-edge", typer.main.get_command(app))])


def section(name: str, command: Any) -> list[str]:
    """A command: what it does, its arguments and options, and the commands within it."""
    lines = [f"## {name}", "", *described(command.help or "")]
    hints = getattr(command.callback, "__annotations__", {})
    rows = [row(each, hints.get(each.name)) for each in command.params if not each.hidden and each.name in hints]
    if rows:
        lines += ["", "| | | default |", "|---|---|---|", *rows]
    lines.append("")
    for inner, each in getattr(command, "commands", {}).items():
        lines += section(f"{name} {inner}", each)
    return lines


def described(text: str) -> list[str]:
    """The help of a command, its examples as a block."""
    lines = [line.strip() for line in text.strip().splitlines()]
    examples = [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]
    prose = "\n".join(line for line in lines if not line.startswith("Example: ")).strip().splitlines()
    return [*prose, "", "```text", *examples, "```"] if examples else prose


def row(parameter: Any, annotation: Any) -> str:
    """An argument or an option."""
    names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else [parameter.name]
    shown = getattr(parameter, "show_default", None)
    default = shown if isinstance(shown, str) else parameter.default
    if parameter.required:
        default = "required"
    elif callable(default) or default is None or default is False or default == []:
        default = ""
    said = " ".join((parameter.help or "").split()).replace("|", "\\|")
    if choices := list(literals(annotation)):
        said += f" One of {', '.join(choices)}."
    return f"| {', '.join(f'`{name}`' for name in names)} | {said} | {default} |"


def literals(annotation: Any) -> Iterator[str]:
    """What a parameter may be, if that is a Literal."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from literals(part)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
