"""Which engine answers, and what a user hears when it cannot."""

import json
import shutil
from pathlib import Path

import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import RequestError, SmolVLM
from smolvlm_edge.bundle import sha256

BOTH = ("onnx", "openvino")
ENGINES = ("onnxruntime", "openvino")
STORY = "Tell me a story."
ROOT = Path(__file__).parent.parent


@pytest.fixture
def bundle(tiny_bundle, tmp_path: Path) -> Path:
    """A bundle for OpenVINO alone, to be damaged."""
    return Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", "openvino"), tmp_path / "bundle"))


def test_info_names_both_targets(tiny_bundle) -> None:
    result = smol_edge("info", tiny_bundle("tiny-idefics3", "int4", *BOTH))
    assert result.returncode == 0, result.stderr
    assert "onnx MB" in result.stdout
    assert "openvino MB" in result.stdout


@pytest.mark.parametrize(
    ("targets", "options", "engine"),
    [
        (("openvino",), (), "openvino"),
        (BOTH, ("--engine", "openvino"), "openvino"),
        (BOTH, (), "onnxruntime"),
        (("onnx",), ("--engine", "onnxruntime"), "onnxruntime"),
    ],
)
def test_the_engine_is_the_one_that_was_asked_for_or_the_bundles(
    tiny_bundle, targets: tuple[str, ...], options: tuple[str, ...], engine: str
) -> None:
    """The other one is not there, so that only the right one can answer."""
    patch = f"sys.modules[{next(other for other in ENGINES if other != engine)!r}] = None"
    folder = tiny_bundle("tiny-idefics3", "fp32", *targets)
    result = smol_edge("run", STORY, "--model", folder, "--max-tokens", "8", *options, patch=patch)
    assert (result.returncode, result.stderr) == (0, "")
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32")) as model:
        assert result.stdout == model.generate([], STORY, max_tokens=8).text + "\n"


@pytest.mark.parametrize(("target", "engine"), [("onnx", "openvino"), ("openvino", "onnxruntime")])
def test_a_bundle_without_graphs_for_the_engine(tiny_bundle, tmp_path: Path, target: str, engine: str) -> None:
    folder = tiny_bundle("tiny-idefics3", "int4", target)
    words = (f"none for {engine}", "--target")
    assert_fails(smol_edge("run", STORY, "--model", folder, "--engine", engine), 2, *words)
    results = tmp_path / "results.jsonl"
    assert_fails(smol_edge("eval", "--model", folder, "--engine", engine, "--results", results), 2, *words)
    assert not results.exists()


def test_an_openvino_that_cannot_be_loaded(bundle: Path) -> None:
    result = smol_edge("run", STORY, "--model", bundle, patch="sys.modules['openvino._pyopenvino'] = None")
    assert_fails(result, 1, "openvino", "pip install")


def test_replies_of_two_engines_are_not_mixed_in_one_file(tiny_bundle, tmp_path: Path) -> None:
    folder = tiny_bundle("tiny-idefics3", "int4", *BOTH)
    run = ("eval", "--model", folder, "--limit", "1", "--max-tokens", "1", "--results", tmp_path / "results.jsonl")
    assert smol_edge(*run).returncode == 0
    assert_fails(smol_edge(*run, "--engine", "openvino"), 2, "results.jsonl")


def test_an_engine_that_there_is_not(tiny_bundle) -> None:
    with pytest.raises(RequestError, match="onnxruntime, openvino, not 'abacus'"):
        SmolVLM.load(tiny_bundle("tiny-idefics3", "int4"), engine="abacus")
    assert smol_edge("run", STORY, "--engine", "abacus").returncode == 2


def test_without_openvino_one_line_names_the_extra(
    bundle: Path, tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Nor does an engine that was asked for by name turn into another one."""
    patch, extra = "sys.modules['openvino'] = None", "pip install 'smol-edge[openvino]'"
    both = tiny_bundle("tiny-idefics3", "int4", *BOTH)
    assert_fails(smol_edge("run", STORY, "--model", bundle, patch=patch), 1, "openvino", extra)
    assert_fails(smol_edge("run", STORY, "--model", both, "--engine", "openvino", patch=patch), 1, extra)
    out = tmp_path / "out"
    export = ("export", tiny_checkpoints["tiny-idefics3"], "--target", "both", "--out", out)
    assert_fails(smol_edge(*export, patch=patch), 1, extra)
    assert not out.exists()


@pytest.mark.parametrize("name", ["decoder.xml", "decoder.bin", "vision_encoder.bin"])
def test_a_changed_byte(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    assert_fails(smol_edge("run", STORY, "--model", bundle), 4, name, "export the model again")


def test_graphs_of_the_other_engine_are_not_looked_at(tiny_bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", *BOTH), tmp_path / "bundle"))
    data = bytearray((folder / "decoder.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "decoder.onnx.data").write_bytes(data)
    run = ("run", STORY, "--model", folder, "--max-tokens", "1")
    assert_fails(smol_edge(*run), 4, "decoder.onnx.data")
    assert smol_edge(*run, "--engine", "openvino").returncode == 0


def test_weights_that_the_manifest_does_not_vouch_for(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"].pop("decoder.bin")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    assert_fails(smol_edge("run", STORY, "--model", bundle), 4, "decoder.bin")


@pytest.mark.parametrize(
    ("name", "operator"), [("connector.xml", "MatMul"), ("embed_tokens.xml", "Gather"), ("decoder.xml", "Sqrt")]
)
def test_a_graph_that_openvino_refuses(bundle: Path, name: str, operator: str) -> None:
    """As one of a newer release, with an operator that this one does not know."""
    text = (bundle / name).read_text().replace(f'type="{operator}"', 'type="Abacus"')
    (bundle / name).write_text(text)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][name] = {"size": len(text), "sha256": sha256(bundle / name)}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    picture = ROOT / "examples" / "shapes.png"
    assert_fails(smol_edge("run", picture, STORY, "--model", bundle), 1, "openvino", "refuses", name, "Abacus")
