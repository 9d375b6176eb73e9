"""The engines are tried once, when a model by name is first loaded: by whom, what comes of it, and who is spared it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import smol_edge
from filelock import FileLock

from smolvlm_edge import SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.graphs import choice as choosing
from smolvlm_edge.graphs import engines, trial
from smolvlm_edge.graphs.choice import choose_engines
from smolvlm_edge.graphs.trial import fastest, measure_once
from smolvlm_edge.store import measured
from smolvlm_edge.store.measured import remember

BOTH = ("onnx", "openvino")
STORY = "Tell me a story."


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder, a processor whose row prefers ONNX Runtime, and no word against measuring."""
    monkeypatch.setenv("SMOL_EDGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SMOL_EDGE_MEASURE")
    monkeypatch.setattr(choosing, "processor_features", lambda: ["vnni"])
    monkeypatch.setattr(trial, "MOST_S", 60.0)  # however slow this machine is at the moment
    monkeypatch.setattr(trial, "BUSY", 1000.0)
    return tmp_path / "home"


@pytest.fixture
def named(tiny_bundle: Callable[..., Path], home: Path) -> Path:
    """A bundle for both engines where those of named models are."""
    folder = home / "bundles" / "tiny@0-int4"
    return Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", *BOTH), folder))


def kept(home: Path) -> dict[str, object]:
    """The only entry of what was measured."""
    (entry,) = json.loads((home / measured.FILE).read_text()).values()
    return dict(entry)


def test_the_first_load_measures_both_halves_and_auto_goes_by_it(named: Path, home: Path) -> None:
    before = sorted(named.rglob("*"))
    with SmolVLM.load(named, threads=1) as model:
        entry = kept(home)
        assert {half: {*times} for half, times in entry["seconds"].items()} == {
            "vision": {"onnxruntime", "openvino"},
            "decoder": {"onnxruntime", "openvino"},
        }
        wish = engines.read_wish(str(entry["engine"]))
        assert model.choice is not None
        assert {"vision": model.choice.vision.engine, "decoder": model.choice.decoder.engine} == wish
        assert "when a model was first loaded: a tile in " in model.choice.vision.why
        assert model.generate([], STORY, max_tokens=1).timings.generated_tokens == 1
    assert sorted(named.rglob("*")) == before
    stamp = (home / measured.FILE).stat().st_mtime_ns
    measure_once(Bundle.open(named), 1)
    assert (home / measured.FILE).stat().st_mtime_ns == stamp, "it was measured twice"


def test_the_commands_tell_it_once_and_doctor_says_why(named: Path, home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SMOL_EDGE_MEASURE"}
    environment["HF_HOME"] = str(home / "hf")
    patch = "import smolvlm_edge.graphs.trial as trial\ntrial.MOST_S, trial.BUSY = 60.0, 1000.0"
    run = ("run", STORY, "--model", named, "--max-tokens", "1")
    first, second = (smol_edge(*run, patch=patch, env=environment) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stderr.startswith("note: measuring once which engine is faster")
    assert "SMOL_EDGE_MEASURE=0" in first.stderr
    assert "measuring" not in second.stderr
    assert second.stdout == first.stdout
    told = smol_edge("doctor", env=environment).stdout
    assert f"measured on this machine on {kept(home)['day']} when a model was first loaded: a tile in" in told


def test_who_is_spared_it(named: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the user's, one who forbids it, who names engines or sets them, and who has one engine."""

    def spared(folder: Path, **options: object) -> bool:
        SmolVLM.load(folder, **options).close()
        monkeypatch.setattr(trial, "_chosen", {})
        return not (home / measured.FILE).exists()

    own = Path(shutil.copytree(named, tmp_path / "own"))
    before = sorted(own.rglob("*"))
    assert spared(own)
    assert sorted(own.rglob("*")) == before
    assert spared(named, measure=False)
    assert spared(named, engine="openvino")
    assert spared(named, engine_options={"onnxruntime": {"session.intra_op.allow_spinning": "0"}})
    with monkeypatch.context() as patch:
        patch.setenv("SMOL_EDGE_MEASURE", "0")
        assert spared(named)
    with monkeypatch.context() as patch:
        find_spec = engines.find_spec
        patch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
        assert spared(named)
    with FileLock(home / f".{measured.FILE}.lock"):
        assert spared(named), "two processes measured each other"
    assert not spared(named)


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="this system has no load average")
def test_a_busy_machine_is_measured_at_another_time(named: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "BUSY", 1.25)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for load, is_measured in ((6.0, False), (3.0, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 9.0, 9.0))
        measure_once(Bundle.open(named), 1)
        assert (home / measured.FILE).exists() == is_measured


def test_within_a_process_the_choice_stays(named: Path, home: Path) -> None:
    """Whatever is measured meanwhile: the engines differ in the last bits of an answer."""
    with SmolVLM.load(named, threads=1, measure=False) as model:
        assert str(model.choice) == "onnxruntime"
    remember(Bundle.open(named), 1, "openvino")
    with SmolVLM.load(named, threads=1) as model:
        assert str(model.choice) == "onnxruntime"
    assert str(choose_engines(Bundle.open(named), threads=1)) == "openvino"


def test_what_would_take_too_long_is_left_to_the_table(
    named: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_S", 0.0)
    bundle = Bundle.open(named)
    measure_once(bundle, 1)
    assert (kept(home)["engine"], kept(home)["seconds"]) == ("auto", {})
    found = choose_engines(bundle, threads=1)
    assert str(found) == "onnxruntime"
    assert "too slow to be measured in passing" in found.vision.why
    assert "smol-edge bench --store" in found.vision.why


def test_a_damaged_graph_is_measured_by_nobody(
    named: Path, home: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray((named / "decoder.bin").read_bytes())
    data[-1] ^= 1
    (named / "decoder.bin").write_bytes(data)
    with SmolVLM.load(named) as model:
        assert str(model.choice) == "onnxruntime"
    assert "the engines were not measured" in caplog.text
    assert "decoder.bin has changed" in caplog.text
    assert not (home / measured.FILE).exists()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, "auto"),
        ({"decoder": {"onnxruntime": 1.0, "openvino": 0.5}}, "decoder=openvino"),
        (
            {"vision": {"onnxruntime": 0.26, "openvino": 0.21}, "decoder": {"onnxruntime": 1.0, "openvino": 0.95}},
            "vision=openvino,decoder=onnxruntime",
        ),
    ],
)
def test_the_tables_engine_must_be_clearly_beaten(
    home: Path, seconds: dict[str, dict[str, float]], expected: str
) -> None:
    assert fastest(seconds) == expected


@pytest.mark.parametrize("entry", [{"seconds": 3}, {"seconds": {"vision": 3}}, {"origin": 1}, {"engine": "abacus"}])
def test_a_file_that_somebody_wrote_into(named: Path, home: Path, entry: dict[str, object]) -> None:
    remember(Bundle.open(named), 1, "openvino", measured.FIRST_LOAD, {"vision": {"openvino": 0.1}})
    (key,) = json.loads((home / measured.FILE).read_text())
    (home / measured.FILE).write_text(json.dumps({key: {**kept(home), **entry}}))
    assert str(choose_engines(Bundle.open(named), threads=1)) in {"onnxruntime", "openvino"}
