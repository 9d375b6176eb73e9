"""optimum: its command line exports as ours does, and optimum-intel answers from the layout that is meant for it.

`make optimum` makes the environments. optimum-intel has one of its own, whose python SMOL_EDGE_OPTIMUM_INTEL names: it
wants an older huggingface_hub and an older transformers than smol-edge does.

optimum-intel counts the positions of patches wrongly with transformers 4.55 and later (all but the first are one too
low in float32), and passes them to a vision graph that has an input for them. Ours has none, so that its answers are
those of transformers also about pictures.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import assert_fails, smol_edge
from pictures import CASES, Case
from rig import read_golden

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export.layouts.optimum import FILES
from smolvlm_edge.graphs.openvino import ov

GOLDENS = Path(__file__).parent / "goldens"
CHECKPOINTS = ("tiny-idefics3", "tiny-smolvlm")
INTEL = "SMOL_EDGE_OPTIMUM_INTEL"
in_its_environment = pytest.mark.skipif(INTEL not in os.environ, reason=f"needs {INTEL}: make optimum")
has_optimum = pytest.mark.skipif(
    not (find_spec("optimum") and find_spec("optimum.exporters")), reason="needs the [optimum] extra"
)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoints) -> Path:
    """A tiny checkpoint in fp32, as a user exports it."""
    out = tmp_path_factory.mktemp("optimum") / request.param
    export = ("export", tiny_checkpoints[request.param], "--quant", "fp32", "--layout", "optimum", "--out", out)
    result = smol_edge(*export)
    assert result.returncode == 0, result.stderr
    return out


def test_inputs_and_outputs_are_those_that_optimum_intel_looks_for(layout: Path) -> None:
    names = {}
    for part in ("vision_embeddings", "text_embeddings", "language"):
        model = ov.Core().read_model(layout / f"openvino_{part}_model.xml")
        names[part] = [{value.get_any_name() for value in values} for values in (model.inputs, model.outputs)]
    assert names["vision_embeddings"][0] == {"pixel_values"}, "positions of patches would be wrong"
    assert names["text_embeddings"] == [{"input_ids"}, {"inputs_embeds"}]
    assert names["language"] == [{"inputs_embeds", "attention_mask", "position_ids", "beam_idx"}, {"logits"}]


def test_only_such_a_folder_is_replaced(layout: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints[layout.name]
    command = ("export", checkpoint, "--quant", "int4", "--layout", "optimum", "--out")
    assert_fails(smol_edge(*command, layout), 2, "exists", "--force")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        for path in layout.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    (theirs / "notes.txt").write_text("mine")
    assert_fails(smol_edge(*command, theirs, "--force"), 2, "--force does not replace it")
    before = (ours / FILES[-1]).stat().st_size
    assert smol_edge(*command, ours, "--force").returncode == 0
    assert (ours / FILES[-1]).stat().st_size < before
    assert contents(ours).keys() == contents(layout).keys(), "and nothing of the bundle it is made of"
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "theirs"}
    assert (theirs / "notes.txt").read_text() == "mine"


def test_what_does_not_go_with_the_layout(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export = ("export", tiny_checkpoints["tiny-idefics3"], "--layout", "optimum", "--out", out)
    assert_fails(smol_edge(*export, "--target", "both"), 2, "--layout optimum", "--target")
    without = smol_edge(*export, patch="sys.modules['openvino'] = None")
    assert_fails(without, 1, "pip install 'smol-edge[openvino]'")
    assert not out.exists()


def test_a_failure_leaves_what_was_there(layout: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Nothing, or the folder that was to be replaced."""
    patch = """
import smolvlm_edge.export.layouts.layout as layout
def full(*_): raise OSError(28, "No space left on device")
layout.shutil.copyfile = full
"""
    home, out = tmp_path / "home", tmp_path / "home" / "out"
    export = ("export", tiny_checkpoints[layout.name], "--layout", "optimum", "--out", out)
    assert_fails(smol_edge(*export, patch=patch), 1, "No space left", "nothing was left behind")
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(layout, out)
    assert_fails(smol_edge(*export, "--force", patch=patch), 1, "No space left", "nothing was left behind")
    assert [path.name for path in home.iterdir()] == ["out"]
    assert contents(out) == contents(layout)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ask(folder: Path, lines: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """What optimum-intel says."""
    command = [os.environ[INTEL], str(Path(__file__).parent / "ask_optimum.py"), str(folder)]
    questions = "\n".join(map(json.dumps, lines))
    result = subprocess.run(command, input=questions, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def question(case: Case, max_tokens: int, name: str, folder: Path) -> dict[str, Any]:
    paths = [str(folder / f"{name}-{number}.png") for number, _ in enumerate(case.sizes)]
    for path, picture in zip(paths, case.pictures(), strict=True):
        picture.save(path)
    return {"images": paths, "prompt": case.prompt, "split": case.split, "max_tokens": max_tokens}


@pytest.mark.optimum
@in_its_environment
def test_optimum_intel_gives_the_answers_of_transformers(layout: Path, tmp_path: Path) -> None:
    goldens = {name: read_golden(GOLDENS / f"{layout.name}.npz", name) for name in CASES}
    asked = [[question(CASES[name], len(goldens[name]["token_ids"]), name, tmp_path)] for name in CASES]
    for (name, golden), (answer,) in zip(goldens.items(), ask(layout, asked), strict=True):
        assert answer["input_ids"] == golden["input_ids"].tolist(), name
        assert answer["token_ids"] == golden["token_ids"].tolist(), name


@pytest.mark.optimum
@in_its_environment
def test_a_batch_that_is_filled_up_on_the_left_gives_the_same_answers(layout: Path, tmp_path: Path) -> None:
    questions = [question(CASES[name], 12, name, tmp_path) for name in ("text", "long_text")]
    *alone, together = ask(layout, [[each] for each in questions] + [questions])
    assert together == [answer for (answer,) in alone]


@pytest.mark.optimum
@has_optimum
def test_optimum_cli_does_what_our_command_does(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def optimum_cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "smol-edge" in optimum_cli("--help").stdout
    assert "--adapter" in optimum_cli("smol-edge", "--help").stdout
    checkpoint, out = tiny_checkpoints["tiny-idefics3"], tmp_path / "theirs"
    export = (checkpoint, "--quant", "int8", "--target", "openvino", "--out")
    result = optimum_cli("smol-edge", *export, out)
    assert result.returncode == 0, result.stderr
    assert smol_edge("export", *export, tmp_path / "ours").returncode == 0
    assert Bundle.open(out).files == Bundle.open(tmp_path / "ours").files
    again = optimum_cli("smol-edge", *export, out)
    assert again.returncode == 2
    assert "--force" in again.stderr.splitlines()[-1]
