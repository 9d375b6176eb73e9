"""The house as CONTRIBUTING.md shows it: which room imports which, read from the source, in one direction.

The table there is the expectation. Rooms are named by the first part of their name in `smolvlm_edge`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import smolvlm_edge

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = "smolvlm_edge"
FOLDERS = {
    PACKAGE: ROOT / "smolvlm_edge",
    f"{PACKAGE}.export": ROOT / "export",
    f"{PACKAGE}.quantize": ROOT / "quantize",
    f"{PACKAGE}.demo.scenes": ROOT / "demo" / "scenes",
    "integrations": ROOT / "integrations",
}
UPWARDS = {("store", "export"), ("store", "quantize")}
"""The exception that CONTRIBUTING.md states: inside functions only."""


@dataclass(frozen=True)
class Room:
    ours: frozenset[str]
    others: frozenset[str]


@dataclass(frozen=True)
class Import:
    file: str
    room: str
    module: str
    names: tuple[str, ...]
    runs_on_import: bool

    @property
    def target(self) -> str:
        """The room that is imported, or the package itself."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else parts[0]

    @property
    def is_ours(self) -> bool:
        return self.module.split(".")[0] == PACKAGE


def table() -> dict[str, Room]:
    rooms: dict[str, Room] = {}
    rows = re.findall(r"^\| (`.+`) \|.*\| (.+) \| (.+) \|$", GUIDE, re.MULTILINE)
    for names, ours, others in rows:
        above = {*rooms} if ours == "all" else {*re.findall(r"`(\w+)`", ours)}
        here = [name.removesuffix(".py").split("/")[0] for name in re.findall(r"`([^`]+)`", names)]
        if "model" in here:
            above |= {*here}
        room = Room(frozenset(above), frozenset(others.split(", ")) - {"–"})
        rooms |= dict.fromkeys(here, room)
    return rooms


ROOMS = table()


def imports() -> Iterator[Import]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder).with_suffix("")
            name = ".".join([package, *relative.parts]).removesuffix(".__init__")
            if name != PACKAGE:  # whose __init__ only names what is public
                yield from imports_of(path, name.split(".")[1 if package.startswith(PACKAGE) else 0])


def imports_of(path: Path, room: str) -> Iterator[Import]:
    def walk(node: ast.AST, runs: bool) -> Iterator[tuple[ast.AST, bool]]:
        for child in ast.iter_child_nodes(node):
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield child, runs
            yield from walk(child, runs and not later and not typing)

    for node, runs in walk(ast.parse(path.read_text(encoding="utf-8")), True):
        file = path.relative_to(ROOT).as_posix()
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = tuple(alias.name for alias in node.names)
            inside = [f"{PACKAGE}.{name}" for name in names if node.module == PACKAGE and name in ROOMS]
            for module in inside or [str(node.module)]:
                yield Import(file, room, module, names, runs)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, room, alias.name, (), runs)


IMPORTS = [*imports()]


def test_every_room_is_in_the_table_and_stands() -> None:
    folders = {path for path in (ROOT / PACKAGE).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    there = {path.stem for path in folders} - {"__init__"}
    assert there | {"export", "quantize", "demo", "integrations"} == {*ROOMS}


def test_the_table_has_one_direction() -> None:
    above: set[str] = set()
    for name, room in ROOMS.items():
        siblings = {other for other in ROOMS if ROOMS[other] is room}
        assert room.ours <= above | siblings, f"{name} would import what stands below it"
        above.add(name)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_what_its_row_names(name: str) -> None:
    wrong = [
        each
        for each in IMPORTS
        if each.room == name != each.target and each.is_ours and each.target not in ROOMS[name].ours | {PACKAGE}
    ]
    assert [each for each in wrong if (name, each.target) not in UPWARDS or each.runs_on_import] == []


@pytest.mark.parametrize("name", ROOMS)
def test_a_row_names_whose_packages_a_room_imports(name: str) -> None:
    found = {each.target for each in IMPORTS if each.room == name and not each.is_ours}
    assert found - {*sys.stdlib_module_names} <= ROOMS[name].others


def test_the_exporter_and_all_that_is_an_extra_are_imported_inside_functions() -> None:
    """By the runtime: `import smolvlm_edge` works with the base install alone, and opens no engine."""
    extras = {"av", "llguidance", "lxml", "ml_dtypes", "onnx_ir", "openvino", "optimum", "pyarrow", "safetensors"}
    lazy = {"export", "quantize", "onnxruntime", "huggingface_hub"} | extras
    allowed = (
        "smolvlm_edge/graphs/onnxruntime.py",  # each is imported when its engine is opened
        "smolvlm_edge/store/hub/",  # imported when something is fetched or looked for
        "smolvlm_edge/constraints/endings.py",  # imported when an answer is brought to an end
        "smolvlm_edge/quality/matrices/onnx.py",  # imported by `smol-edge quality`, which says what it needs
        "smolvlm_edge/pyinstaller/hook-smolvlm_edge.py",
    )
    runtime = [each for each in IMPORTS if each.file.startswith(PACKAGE) and not each.file.startswith(allowed)]
    assert [each for each in runtime if each.target in lazy and each.runs_on_import] == []


def test_integrations_and_examples_use_public_names() -> None:
    found = [each for each in IMPORTS if each.room == "integrations"]
    for path in sorted((ROOT / "examples").rglob("*.py")):
        found += imports_of(path, "examples")
    for each in found:
        own = each.room == "integrations" and each.module.startswith(("smolvlm_edge.cli", "smolvlm_edge.integrations"))
        if not each.is_ours or own:
            continue
        if each.file == "examples/make.py":  # draws the pictures, by the scenes that the model was trained on
            continue
        assert each.module == PACKAGE, each
        assert {*each.names} <= {*smolvlm_edge.__all__}, each


def test_the_picture_shows_arrows_of_the_table() -> None:
    drawing = GUIDE[GUIDE.index("```mermaid") :].partition("\n```\n")[0]
    solid, dotted = (set(re.findall(rf"(\w+) {arrow} (\w+)", drawing)) for arrow in ("-->", r"-\.->"))
    assert dotted <= UPWARDS
    drawn = {room for arrow in solid for room in arrow}
    assert drawn <= {*ROOMS}
    for room, target in solid:
        assert target in ROOMS[room].ours, f"{room} --> {target} is drawn, but not in the table"
    for room in drawn:
        assert ROOMS[room].ours & drawn <= reached(room, solid), f"the picture shows less of {room} than the table"


def reached(room: str, arrows: set[tuple[str, str]]) -> set[str]:
    """What arrows lead to from a room, by way of others too, and the room itself."""
    return {room}.union(*(reached(target, arrows) for origin, target in arrows if origin == room))
