"""An export is repeatable, appears whole or not at all, and replaces nothing that it was not told to."""

import hashlib
import json
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir
import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import ExportError, RequestError
from smolvlm_edge.bundle import GRAPH_NAMES, Bundle, Target
from smolvlm_edge.cli.export import Quant, Targets
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.export.checkpoint import TOKEN_TABLE
from smolvlm_edge.quantize import RECIPES

TARGETS = get_args(Target)

ACCIDENT = """
import os, signal
from smolvlm_edge.export.checkpoint import TOKEN_TABLE
from smolvlm_edge.export.pipeline import OnnxGraphBuilder
save = OnnxGraphBuilder.save
def accident(self, version):
    save(self, version)
    if self.name == "embed_tokens":
        os.kill(os.getpid(), signal.{signal})
OnnxGraphBuilder.save = accident
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_command_offers_every_recipe() -> None:
    assert set(get_args(Quant)) == set(RECIPES)


def test_the_command_offers_every_target() -> None:
    assert set(get_args(Targets)) == {*TARGETS, "both"}


@pytest.mark.parametrize("quant", RECIPES)
def test_same_checkpoint_same_bytes(tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path, quant: str) -> None:
    first, checkpoint = tiny_bundle("tiny-idefics3", quant, *TARGETS), tiny_checkpoints["tiny-idefics3"]
    second = export_checkpoint(checkpoint, tmp_path / "again", RECIPES[quant], targets=TARGETS, calibration=None)
    assert digests(first) == digests(second)


def test_each_target_alone_has_the_same_files_as_both_together(
    tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    both = digests(tiny_bundle("tiny-idefics3", "int4", *TARGETS))
    alone: dict[str, str] = {}
    for target in TARGETS:
        out = tmp_path / target
        result = smol_edge(
            "export", tiny_checkpoints["tiny-idefics3"], "--target", target, "--out", out, "--calibrate", "none"
        )
        assert result.returncode == 0, result.stderr
        assert Bundle.open(out).targets == (target,)
        alone |= digests(out)
    assert {**alone, "bundle.json": ""} == {**both, "bundle.json": ""}


@pytest.mark.parametrize("targets", [[], ["onnx", "abacus"]])
def test_targets_that_there_are_not(tiny_checkpoints: dict[str, Path], tmp_path: Path, targets: list[str]) -> None:
    with pytest.raises(RequestError, match="some of onnx, openvino, not"):
        export_checkpoint(tiny_checkpoints["tiny-idefics3"], tmp_path / "out", targets=targets)
    assert not list(tmp_path.iterdir())


def test_export_prints_the_folder_and_the_next_command(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    result = smol_edge("export", tiny_checkpoints["tiny-smolvlm"], "--quant", "int8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "tiny-smolvlm-int8\n"
    assert "smol-edge run" in result.stderr
    assert (tmp_path / "tiny-smolvlm-int8" / "bundle.json").is_file()


def test_export_as_json(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    result = smol_edge("export", tiny_checkpoints["tiny-smolvlm"], "--out", tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert report["targets"] == ["onnx"]
    assert report["size_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert result.stderr == ""


def test_an_existing_folder_is_kept(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("do not lose")
    checkpoint = tiny_checkpoints["tiny-idefics3"]
    assert_fails(smol_edge("export", checkpoint, "--out", out), 2, "exists", "--force")
    assert_fails(smol_edge("export", checkpoint, "--out", out, "--force"), 2, "no bundle")
    assert (out / "thesis.txt").read_text() == "do not lose"


def test_force_replaces_a_bundle(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "out", tiny_checkpoints["tiny-idefics3"]
    export_checkpoint(checkpoint, out, RECIPES["fp32"])
    export_checkpoint(checkpoint, out, RECIPES["int4"], force=True)
    assert Bundle.open(out).recipe["name"] == "int4"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("kill", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_export_leaves_nothing(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, kill: str, exit_code: int
) -> None:
    result = smol_edge(
        "export", tiny_checkpoints["tiny-idefics3"], "--out", tmp_path / "out", patch=ACCIDENT.format(signal=kill)
    )
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_export_leaves_no_bundle(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Nobody can clean up after SIGKILL, but the output's name is still free and the next export works."""
    out, checkpoint = tmp_path / "out", tiny_checkpoints["tiny-idefics3"]
    result = smol_edge("export", checkpoint, "--out", out, patch=ACCIDENT.format(signal="SIGKILL"))
    assert result.returncode == -signal.SIGKILL
    assert not out.exists()
    assert smol_edge("export", checkpoint, "--out", out).returncode == 0


def test_an_interrupted_replacement_keeps_the_old_bundle(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "out", tiny_checkpoints["tiny-idefics3"]
    export_checkpoint(checkpoint, out, RECIPES["fp32"])
    before = digests(out)
    smol_edge("export", checkpoint, "--out", out, "--force", patch=ACCIDENT.format(signal="SIGINT"))
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_between_the_two_renames_brings_the_old_bundle_back(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    out, checkpoint = tmp_path / "out", tiny_checkpoints["tiny-idefics3"]
    export_checkpoint(checkpoint, out, RECIPES["fp32"])
    before, rename = digests(out), Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoint, out, RECIPES["int4"], force=True)
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_appeared_during_the_export_is_kept(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def somebody_else(_graph: str, done: int, _total: int) -> None:
        if done == 1:
            out.mkdir()
            (out / "mine.txt").write_text("do not lose")

    with pytest.raises(ExportError):
        export_checkpoint(tiny_checkpoints["tiny-idefics3"], out, progress=somebody_else)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_force_keeps_a_folder_that_holds_more_than_a_bundle(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "out", tiny_checkpoints["tiny-idefics3"]
    export_checkpoint(checkpoint, out)
    (out / "thesis.txt").write_text("do not lose")
    assert_fails(smol_edge("export", checkpoint, "--out", out, "--force"), 2, "thesis.txt")
    assert (out / "thesis.txt").is_file()


def test_force_through_a_symbolic_link_replaces_what_it_points_at(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    real, link, checkpoint = tmp_path / "real", tmp_path / "link", tiny_checkpoints["tiny-idefics3"]
    export_checkpoint(checkpoint, real, RECIPES["fp32"])
    link.symlink_to(real)
    assert smol_edge("export", checkpoint, "--out", link, "--force").returncode == 0
    assert link.is_symlink()
    assert Bundle.open(real).recipe["name"] == "int4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_parents_made_for_a_failed_export_vanish_too(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").unlink()
    assert smol_edge("export", checkpoint, "--out", tmp_path / "a" / "b" / "out").returncode == 4
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("target", TARGETS)
def test_a_full_disk(tiny_checkpoints: dict[str, Path], tmp_path: Path, target: str) -> None:
    """A bound on file size fails a write in the middle, as a full disk does."""
    result = smol_edge(
        "export",
        tiny_checkpoints["tiny-idefics3"],
        "--target",
        target,
        "--out",
        tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert_fails(result, 1, "cannot write")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = smol_edge("export", tiny_checkpoints["tiny-idefics3"], "--out", tmp_path / "file" / "out")
    assert_fails(result, 1, "cannot write")
    assert_fails(smol_edge("export", tiny_checkpoints["tiny-idefics3"], "--out", "x" * 300), 1, "cannot write")


def test_source_and_revision_of_a_hub_snapshot(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--a-fine-tune" / "snapshots" / ("0123456789" * 4)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny_checkpoints["tiny-idefics3"])
    bundle = Bundle.open(export_checkpoint(snapshot, tmp_path / "out"))
    assert (bundle.source, bundle.revision) == ("someone/a-fine-tune", "0123456789" * 4)


@pytest.mark.parametrize("name", ["tiny-idefics3", "tiny-smolvlm"])
def test_graphs_are_readable(tiny_bundle, name: str) -> None:
    """Nodes carry the checkpoint's names, so that a graph reads like the model."""
    graph = ir.load(tiny_bundle(name, "int4") / "decoder.onnx").graph
    names = [node.name for node in graph]
    assert "/layers.1/self_attn/o_proj/MatMulNBits" in names
    assert len(names) == len(set(names)), "node names are unique"


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_every_block_quantised_product_has_a_packed_kernel(tiny_bundle, quant: str) -> None:
    """Without accuracy_level 4, 8-bit MatMulNBits unpacks its whole matrix on every call."""
    for name in GRAPH_NAMES:
        for node in ir.load(tiny_bundle("tiny-idefics3", quant) / f"{name}.onnx").graph:
            if node.op_type == "MatMulNBits":
                assert node.attributes["accuracy_level"].as_int() == 4


def test_what_attention_looks_at_and_the_connector_stay_int8_in_int4(tiny_bundle) -> None:
    bits = {}
    for name in GRAPH_NAMES:
        for node in ir.load(tiny_bundle("tiny-idefics3", "int4") / f"{name}.onnx").graph:
            if "bits" in node.attributes:
                bits[f"{name}{node.name}"] = node.attributes["bits"].as_int()
    assert bits.pop("connector/modality_projection/MatMulNBits") == 8
    attention = [bits.pop(name) for name in list(bits) if "qkv_proj" in name]
    assert set(attention) == {8}
    assert set(bits.values()) == {4}
    assert {"decoder/lm_head/MatMulNBits", "embed_tokens/embed_tokens/GatherBlockQuantized"} < bits.keys()


def test_weights_are_outside_the_graph_files_and_start_on_pages(tiny_bundle) -> None:
    bundle = tiny_bundle("tiny-idefics3", "fp32")
    external = [
        value.const_value
        for value in ir.load(bundle / "decoder.onnx").graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    assert len(external) > 10
    assert all(tensor.offset % 4096 == 0 for tensor in external)
    table = np.asarray(next(tensor for tensor in external if tensor.name == "lm_head.weight").numpy())
    assert table.shape[1] == Bundle.open(bundle).model.text.vocab_size


@pytest.mark.parametrize(("name", "quant", "once"), [("tiny-smolvlm", "int8", True), ("tiny-idefics3", "int8", False)])
def test_a_table_that_is_the_head_too_is_stored_once(tiny_bundle, name: str, quant: str, once: bool) -> None:
    graphs = [ir.load(tiny_bundle(name, quant) / f"{graph}.onnx").graph for graph in ("embed_tokens", "decoder")]
    table, head = (graphs[0].initializers[f"{TOKEN_TABLE}.codes"], graphs[1].initializers["lm_head.weight.codes"])
    places = {(each.const_value.location, each.const_value.offset) for each in (table, head)}
    assert (len(places) == 1) == once


# -- generation_config.json -------------------------------------------------------------------------


def edited(checkpoint: Path, folder: Path, **generation: object) -> Path:
    """A copy of a checkpoint with other wishes for answers."""
    copy = Path(shutil.copytree(checkpoint, folder))
    file = copy / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **generation}))
    return copy


@pytest.mark.parametrize("wishes", [None, {"eos_token_id": None}])
@pytest.mark.parametrize(("name", "end"), [("tiny-idefics3", 358), ("tiny-smolvlm", 343)])
def test_without_an_end_token_the_templates_turn_end_ends_answers(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, name: str, end: int, wishes: dict[str, object] | None
) -> None:
    """Both templates write <end_of_utterance>; config.json names the end of a text, 2."""
    checkpoint = edited(tiny_checkpoints[name], tmp_path / "checkpoint", **(wishes or {}))
    if wishes is None:
        (checkpoint / "generation_config.json").unlink()
    out = export_checkpoint(checkpoint, tmp_path / "out", RECIPES["fp32"])
    assert Bundle.open(out).model.eos_token_ids == (2, end)


def test_what_answers_cannot_follow_is_named_and_kept(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wishes = {"num_beams": 4, "forced_eos_token_id": 5, "top_h": None, "num_return_sequences": 1, "top_k": 7}
    wishes |= {"encoder_repetition_penalty": 1.2, "guidance_scale": 1.0, "min_new_tokens": 3}
    checkpoint = edited(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint", **wishes)
    generation = Bundle.open(export_checkpoint(checkpoint, tmp_path / "out", RECIPES["fp32"])).model.generation
    assert generation.ignored == ("encoder_repetition_penalty=1.2", "forced_eos_token_id=5", "num_beams=4")
    assert "num_beams=4" in caplog.text
    assert generation.options() == {"top_k": 7, "min_tokens": 3}
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["model"]["generation"]["top_k"] == 7
