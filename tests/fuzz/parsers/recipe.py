"""`--recipe`: how a stranger's bundle was quantised."""

from pathlib import Path

from smolvlm_edge.cli.export import _recipe
from smolvlm_edge.quantize import RECIPES
from tests.fuzz.parsers import TESTS, as_json


def seeds(_: Path) -> list[bytes]:
    bundle = (TESTS.parent / "demo" / "bundle" / "bundle.json").read_bytes()
    return [bundle, *as_json(*(recipe.to_dict() for recipe in RECIPES.values()))]


def parse(data: bytes, folder: Path) -> None:
    (folder / "recipe.json").write_bytes(data)
    _recipe(None, None, folder / "recipe.json", None)
