"""What a wheel puts on a user's machine."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import smolvlm_edge

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob("*.whl"))


def test_nothing_but_the_package_lands_in_site_packages(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")]
    others = [name for name in names if not name.startswith("smolvlm_edge/")]
    assert others == ["optimum/commands/register/register_smol_edge.py"], "where optimum looks for commands"


def test_every_module_of_the_repository_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (
        ("smolvlm_edge", "smolvlm_edge"),
        ("export", "smolvlm_edge/export"),
        ("quantize", "smolvlm_edge/quantize"),
        ("demo/scenes", "smolvlm_edge/demo/scenes"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in packed
    assert "smolvlm_edge/py.typed" in packed


def test_the_data_files_travel_with_it_but_no_training(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    packed = {info.filename: info.file_size for info in archive.infolist()}
    bundle = {path.name: path.stat().st_size for path in (ROOT / "demo" / "bundle").iterdir()}
    assert {name.rpartition("/")[2]: size for name, size in packed.items() if "/demo/bundle/" in name} == bundle
    assert sum(bundle.values()) <= 12_000_000
    assert archive.read("smolvlm_edge/lock/models.lock") == (ROOT / "models.lock").read_bytes()
    assert "smolvlm_edge/quality/prose.txt" in packed
    assert not [name for name in packed if "/training/" in name or "/checkpoint/" in name]


def test_the_unpacked_wheel_exports(wheel: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """From the wheel alone: the mapping of export/ and quantize/ into the package works, and only there."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = """
import importlib.util, pathlib, sys
site, checkpoint, out = sys.argv[1:]
sys.path.insert(0, site)
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import smolvlm_edge.export, smolvlm_edge.quantize
assert smolvlm_edge.export.__file__.startswith(site), smolvlm_edge.export.__file__
smolvlm_edge.export.export_checkpoint(pathlib.Path(checkpoint), pathlib.Path(out))
assert not any(importlib.util.find_spec(name) for name in ("export", "quantize", "tests"))
"""
    arguments = [str(tmp_path / "site"), str(tiny_checkpoints["tiny-idefics3"]), str(tmp_path / "out")]
    command = [sys.executable, "-P", "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "bundle.json").is_file()


def test_an_application_that_opens_a_folder_imports_five_of_the_base_packages() -> None:
    """As docs/install.md says; its table is the expectation."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## What the base packages are for")[2]
    rows = re.findall(r"^\| (`.+`) \|", page.partition("\n## ")[0], re.MULTILINE)
    base = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert base[:5] == ["onnxruntime", "numpy", "pillow", "tokenizers", "jinja2"]
    assert {*base[5:]} == {"filelock", "huggingface_hub", "platformdirs", "rich", "typer"}
    program = f"""
import sys
sys.modules |= dict.fromkeys({base[5:]})  # importing one of them raises ImportError
from smolvlm_edge import SmolVLM
with SmolVLM.load({str(ROOT / "demo" / "bundle")!r}) as model:
    print(model.generate({str(ROOT / "examples" / "shapes.png")!r}, "describe"))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "large red circle" in result.stdout, result.stderr


def test_public_names_are_sorted_and_there() -> None:
    assert smolvlm_edge.__all__ == sorted(smolvlm_edge.__all__)
    assert all(hasattr(smolvlm_edge, name) for name in smolvlm_edge.__all__)
