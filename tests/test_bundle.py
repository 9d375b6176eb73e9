"""A bundle is used only as it was exported: changed, cut off, newer or incomplete ones are refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import IntegrityError, ModelNotFoundError, SmolVLM
from smolvlm_edge.bundle import FORMAT_VERSION, Bundle


@pytest.fixture
def bundle(tiny_bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4"), tmp_path / "bundle"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    (bundle / "bundle.json").write_text(json.dumps(manifest(bundle) | changes))


def manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "bundle.json").read_text())


def assert_run_fails(bundle: Path, exit_code: int, *words: str) -> None:
    assert_fails(smol_edge("run", "Tell me a story.", "--model", bundle), exit_code, *words)


@pytest.mark.parametrize(
    "name", ["decoder.onnx", "decoder.onnx.data", "vision_encoder.onnx.data", "tokenizer.json", "config.json"]
)
def test_a_changed_byte(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    assert_run_fails(bundle, 4, name, "export the model again")


def test_a_missing_file(bundle: Path) -> None:
    (bundle / "connector.onnx.data").unlink()
    assert_run_fails(bundle, 4, "connector.onnx.data", "missing")


def test_a_cut_off_file(bundle: Path) -> None:
    data = (bundle / "decoder.onnx.data").read_bytes()
    (bundle / "decoder.onnx.data").write_bytes(data[:-1])
    assert_run_fails(bundle, 4, "decoder.onnx.data")


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json"])
def test_a_file_that_slipped_in(bundle: Path, name: str) -> None:
    """A template beside the exported one would silently take its place."""
    edit_manifest(bundle, files={key: value for key, value in manifest(bundle)["files"].items() if key != name})
    (bundle / name).write_text("{}")
    assert_run_fails(bundle, 4, name)


def test_weights_that_the_manifest_does_not_vouch_for(bundle: Path) -> None:
    files = manifest(bundle)["files"]
    files.pop("decoder.onnx.data")
    edit_manifest(bundle, files=files)
    assert_run_fails(bundle, 4, "decoder.onnx.data")


def test_other_files_do_not_disturb(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"")
    assert smol_edge("run", "Tell me a story.", "--model", bundle, "--max-tokens", "1").returncode == 0


def test_a_newer_format(bundle: Path) -> None:
    edit_manifest(bundle, format_version=FORMAT_VERSION + 1, something_new={})
    assert_run_fails(bundle, 4, f"format {FORMAT_VERSION + 1}", "pip install --upgrade smol-edge")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": "1"}', '{"format_version": 1}'])
def test_a_damaged_manifest(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)
    assert_run_fails(bundle, 4, "bundle.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"decoder.onnx": {}}},
        {"files": []},
        {"model": {}},
        {"model": None},
        {"adapter": "mine"},
        {"adapter": {"name": "mine"}},
        {"targets": []},
        {"targets": "onnx"},
        {"targets": ["onnx", "abacus"]},
        {"targets": [["onnx"]]},
        {"targets": ["onnx", "openvino"]},  # but no such files
    ],
)
def test_a_manifest_that_makes_no_sense(bundle: Path, changes: dict[str, object]) -> None:
    edit_manifest(bundle, **changes)
    assert_run_fails(bundle, 4)


def test_a_bundle_of_a_release_before_adapters(bundle: Path) -> None:
    values = manifest(bundle)
    assert values.pop("adapter") is None
    (bundle / "bundle.json").write_text(json.dumps(values))
    assert Bundle.open(bundle).adapter is None


def test_a_bundle_of_a_release_before_targets(bundle: Path) -> None:
    """Format 1: what the demonstration model came in."""
    values = manifest(bundle) | {"format_version": 1}
    assert values.pop("targets") == ["onnx"]
    (bundle / "bundle.json").write_text(json.dumps(values))
    assert Bundle.open(bundle).targets == ("onnx",)
    assert smol_edge("run", "Tell me a story.", "--model", bundle, "--max-tokens", "1").returncode == 0


def test_no_bundle_there(tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    assert_run_fails(tmp_path / "nowhere", 3, "nowhere", "no folder", "smol-edge models list")
    assert_run_fails(tmp_path / ("x" * 300), 3, "no folder")
    assert_run_fails(tiny_checkpoints["tiny-idefics3"], 3, "export it first")


def test_python_callers_get_the_same_errors(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        SmolVLM.load(tmp_path / "nowhere")
    (bundle / "decoder.onnx").write_bytes(b"")
    with pytest.raises(IntegrityError):
        SmolVLM.load(bundle)


def test_a_bundle_behind_symbolic_links_runs(bundle: Path, tmp_path: Path) -> None:
    """Caches keep files as links to blobs; onnxruntime 1.24.1 could not read external data that way."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in bundle.iterdir():
        (linked / file.name).symlink_to(file)
    assert SmolVLM.load(linked).generate([], "Tell me a story.", max_tokens=3).timings.generated_tokens == 3


def test_info(bundle: Path) -> None:
    result = smol_edge("info", bundle)
    assert result.returncode == 0, result.stderr
    for word in ("tiny-idefics3", "vision_encoder", "connector", "embed_tokens", "decoder", "int4", "int8"):
        assert word in result.stdout


def test_info_as_json_says_what_the_manifest_says(bundle: Path) -> None:
    """And, beside it, where the bundle is and what would run it."""
    report = json.loads(smol_edge("info", bundle, "--json").stdout)
    assert report.pop("folder") == str(bundle)
    assert report.pop("engines").keys() == {"vision", "decoder"}
    assert report == {key: value for key, value in manifest(bundle).items() if key != "format_version"}


def test_every_file_is_in_the_manifest_with_its_size(bundle: Path) -> None:
    found = {path.name: path.stat().st_size for path in bundle.iterdir() if path.name != "bundle.json"}
    assert {name: entry.size for name, entry in Bundle.open(bundle).files.items()} == found


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_is_not_read(bundle: Path, make: Callable[[Path], None]) -> None:
    """A pipe waits for ever, and a device has no end; both have 0 bytes."""
    files = manifest(bundle)["files"]
    files["tokenizer_config.json"] |= {"size": 0}
    edit_manifest(bundle, files=files)
    (bundle / "tokenizer_config.json").unlink()
    make(bundle / "tokenizer_config.json")
    with pytest.raises(IntegrityError, match="no regular file"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["\0", "a\0b", "\ud800", "a\x1b[2Jb", "..", ".", "", "a/b", "x\n"])
def test_names_that_no_file_has(bundle: Path, name: str) -> None:
    edit_manifest(bundle, files={**manifest(bundle)["files"], name: {"size": 1, "sha256": ""}})
    with pytest.raises(IntegrityError, match="outside the bundle"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": 5},
        {"revision": ["main"]},
        {"producer": None},
        {"recipe": {"name": ["int4"], "rules": []}},
        {"recipe": {"name": "int4", "rules": [[1, 2]]}},
        {"recipe": {"name": "int4", "rules": 7}},
        {"lost": [1]},
        {"lost": {"kl": "much"}},
        {"format_version": 10**400},
        {"format_version": True},
        {"files": {"decoder.onnx": {"size": -1, "sha256": ""}}},
        {"files": {"decoder.onnx": {"size": 10**30, "sha256": ""}}},
        {"files": {str(number): {"size": 1, "sha256": ""} for number in range(2000)}},
    ],
)
def test_values_of_another_type_or_size(bundle: Path, changes: dict[str, object]) -> None:
    edit_manifest(bundle, **changes)
    with pytest.raises(IntegrityError) as caught:
        Bundle.open(bundle)
    assert len(str(caught.value)) < 300
