"""Which engine answers, and what a user hears when it cannot."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from command import assert_fails, smol_edge
from pictures import CASES
from rig import read_golden

from smolvlm_edge import EngineError, RequestError, SmolVLM
from smolvlm_edge.bundle import Bundle, sha256
from smolvlm_edge.diagnosis.measuring import answer_seconds, fastest
from smolvlm_edge.graphs import choice as choosing
from smolvlm_edge.graphs import engines
from smolvlm_edge.graphs.choice import Choice, Pick, choose_engines
from smolvlm_edge.graphs.engines import check_engine_options, read_engine_options
from smolvlm_edge.store import measured
from smolvlm_edge.store.measured import remember

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
    assert result.returncode == 0, result.stderr
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
    run = ("run", picture, STORY, "--model", bundle)
    assert_fails(smol_edge(*run), 4, name, "Abacus", "--trust")
    assert_fails(smol_edge(*run, "--trust"), 1, "openvino", "refuses", name, "Abacus")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, and a processor that the table has a row for."""
    monkeypatch.setenv("SMOL_EDGE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "processor_features", lambda: ["vnni"])
    return tmp_path / "cache"


def names(choice: Choice) -> tuple[str, str]:
    return choice.vision.engine, choice.decoder.engine


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("auto", ("onnxruntime", "onnxruntime")),
        ("openvino", ("openvino", "openvino")),
        ("vision=openvino", ("openvino", "onnxruntime")),
        ("vision=auto,decoder=openvino", ("onnxruntime", "openvino")),
        ("decoder=onnxruntime,vision=openvino", ("openvino", "onnxruntime")),
    ],
)
def test_every_half_has_the_engine_that_was_named_or_the_tables(
    tiny_bundle, cache: Path, engine: str, expected: tuple[str, str]
) -> None:
    choice = choose_engines(Bundle.open(tiny_bundle("tiny-idefics3", "int4", *BOTH)), engine)
    assert names(choice) == expected
    assert names(choose_engines(Bundle.open(tiny_bundle("tiny-idefics3", "int4", *BOTH)), str(choice))) == expected


@pytest.mark.parametrize(
    "engine", ["vision=abacus", "tower=openvino", "vision", "vision=openvino;decoder=openvino", ""]
)
def test_a_wish_that_makes_no_sense(tiny_bundle, engine: str) -> None:
    with pytest.raises(RequestError):
        choose_engines(Bundle.open(tiny_bundle("tiny-idefics3", "int4", *BOTH)), engine)


def test_auto_goes_by_what_is_installed(tiny_bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Bundle.open(tiny_bundle("tiny-idefics3", "int4", *BOTH))
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    assert choose_engines(both).decoder == Pick("openvino", "onnxruntime is not installed")
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        choose_engines(Bundle.open(tiny_bundle("tiny-idefics3", "int4", "onnx")))


@pytest.mark.parametrize(
    ("features", "vision"),
    [
        ([], "onnxruntime"),
        (["avx2"], "onnxruntime"),
        (["neon", "dotprod", "bf16"], "onnxruntime"),
        (["vnni", "avx512", "avx2"], "openvino"),
        (["vnni", "avx2"], "onnxruntime"),
        (["bf16", "vnni", "avx512", "avx2"], "openvino"),
        (["amx", "bf16", "vnni", "avx512", "avx2"], "openvino"),
    ],
)
def test_every_processor_has_a_row(monkeypatch: pytest.MonkeyPatch, features: list[str], vision: str) -> None:
    monkeypatch.setattr(choosing, "processor_features", lambda: features)
    assert (choosing.table_row().vision, choosing.table_row().decoder) == (vision, "onnxruntime")


@pytest.mark.parametrize(
    ("features", "made_for"),
    [(["neon", "dotprod"], BOTH), (["avx2"], ("onnx",)), (["avx512", "bf16", "vnni", "avx2"], BOTH)],
)
def test_a_named_model_is_made_for_what_is_to_be_tried(
    monkeypatch: pytest.MonkeyPatch, features: list[str], made_for: tuple[str, ...]
) -> None:
    """Where nothing was measured, for both engines; a bundle that is there for one of them will do all the same."""
    monkeypatch.setattr(choosing, "processor_features", lambda: features)
    wanted = choosing.wanted_targets("auto")
    assert (wanted.made_for, wanted.needed) == (made_for, ())
    assert choosing.wanted_targets("onnxruntime").made_for == ("onnx",)


def test_auto_goes_by_what_was_measured_of_such_a_bundle_on_so_many_threads(tiny_bundle, cache: Path) -> None:
    bundle, other = (Bundle.open(tiny_bundle("tiny-idefics3", quant, *BOTH)) for quant in ("int4", "fp32"))
    file = remember(bundle, 2, "vision=openvino,decoder=onnxruntime")
    assert [path.name for path in cache.iterdir()] == [file.name]
    found = choose_engines(bundle, threads=2)
    assert names(found) == ("openvino", "onnxruntime")
    assert "smol-edge bench" in found.vision.why
    for alike in (choose_engines(bundle, threads=1), choose_engines(other, threads=2)):
        assert names(alike) == ("onnxruntime", "onnxruntime")
    assert names(choose_engines(bundle, "onnxruntime", threads=2)) == ("onnxruntime", "onnxruntime")
    remember(other, 2, "openvino")
    assert names(choose_engines(bundle, threads=2)) == ("openvino", "onnxruntime"), "the older entry was lost"
    file.write_text("{")
    assert names(choose_engines(bundle, threads=2)) == ("onnxruntime", "onnxruntime")


def test_what_was_measured_with_another_version_does_not_count(
    tiny_bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle("tiny-idefics3", "int4", *BOTH))
    remember(bundle, 1, "openvino")
    assert names(choose_engines(bundle, threads=1)) == ("openvino", "openvino")
    monkeypatch.setattr(measured, "installed_version", lambda name: "2030.1")
    assert names(choose_engines(bundle, threads=1)) == ("onnxruntime", "onnxruntime")


@pytest.mark.parametrize("memory", ["low", "balanced"])
@pytest.mark.parametrize("engine", ["vision=openvino,decoder=onnxruntime", "vision=onnxruntime,decoder=openvino"])
def test_a_mixture_gives_the_reference_answer(tiny_bundle, engine: str, memory: str) -> None:
    question = CASES["one_picture"]
    expected = read_golden(ROOT / "tests" / "goldens" / "tiny-idefics3.npz", "one_picture")["token_ids"].tolist()
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32", *BOTH), engine=engine, memory=memory) as model:
        for _ in range(2):
            answer = model.generate(question.pictures(), question.prompt, max_tokens=len(expected))
            assert list(answer.token_ids) == expected
        assert str(model.choice) == engine


def test_a_mixture_reads_each_half_of_the_right_engine(tiny_bundle, tmp_path: Path) -> None:
    """Graphs that it does not use may be damaged; those that it uses are checked."""
    folder = Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", *BOTH), tmp_path / "bundle"))
    for name in ("vision_encoder.onnx.data", "decoder.bin"):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
    run = ("run", STORY, "--model", folder, "--max-tokens", "1", "--engine")
    assert smol_edge(*run, "vision=openvino,decoder=onnxruntime").returncode == 0
    assert_fails(smol_edge(*run, "vision=onnxruntime,decoder=onnxruntime"), 4, "vision_encoder.onnx.data")
    assert_fails(smol_edge(*run, "vision=openvino,decoder=openvino"), 4, "decoder.bin")


def test_one_half_that_was_named_and_is_missing_fails(tiny_bundle) -> None:
    onnx = tiny_bundle("tiny-idefics3", "int4", "onnx")
    both = tiny_bundle("tiny-idefics3", "int4", *BOTH)
    wish = ("--engine", "vision=openvino,decoder=onnxruntime")
    assert_fails(smol_edge("run", STORY, "--model", onnx, *wish), 2, "none for openvino", "--target both")
    missing = smol_edge("run", STORY, "--model", both, *wish, patch="sys.modules['openvino'] = None")
    assert_fails(missing, 1, "pip install 'smol-edge[openvino]'")


def test_json_says_what_was_chosen_and_why(tiny_bundle) -> None:
    both = tiny_bundle("tiny-idefics3", "int4", *BOTH)
    run = smol_edge("run", STORY, "--model", both, "--max-tokens", "1", "--json", "--engine", "vision=openvino")
    info = smol_edge("info", both, "--json", "--engine", "vision=openvino")
    for result in (run, info):
        said = json.loads(result.stdout)["engines"]
        assert said["vision"] == {"engine": "openvino", "why": "asked for by name"}
        assert said["decoder"]["engine"] == "onnxruntime"
        assert said["decoder"]["why"]


def test_info_tells_of_a_bundle_that_nothing_here_runs(bundle: Path) -> None:
    result = smol_edge("info", bundle, "--json", patch="sys.modules['openvino'] = None")
    assert result.returncode == 0
    assert json.loads(result.stdout)["engines"] is None
    assert "pip install 'smol-edge[openvino]'" in result.stderr


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    environment = os.environ | {"SMOL_EDGE_HOME": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    patch = """
sys.modules['openvino'] = None
import smolvlm_edge.diagnosis as diagnosis
version = diagnosis.installed_version
diagnosis.installed_version = lambda name: None if name == "openvino" else version(name)
"""
    result = smol_edge("doctor", "--json", patch=patch, env=environment)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert "pip install 'smol-edge[openvino]'" in [fix["command"] for fix in said["fixes"]]
    assert said["engines"] == {"onnxruntime": "works"}
    assert said["versions"]["openvino"] is None
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= said["threads"] <= processors
    (demo,) = said["models"]
    assert demo["engines"]["decoder"]["engine"] == "onnxruntime"
    assert not list(tmp_path.iterdir()), "doctor writes nothing"
    printed = smol_edge("doctor", patch=patch, env=environment)
    assert "pip install 'smol-edge[openvino]'" in printed.stdout


def test_doctor_finds_an_engine_that_does_not_load(tmp_path: Path) -> None:
    environment = os.environ | {"SMOL_EDGE_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    result = smol_edge("doctor", "--json", patch="sys.modules['openvino._pyopenvino'] = None", env=environment)
    assert "--force-reinstall openvino" in json.loads(result.stdout)["engines"]["openvino"]


def test_bench_measures_engines_and_mixtures_and_keeps_the_fastest(tiny_bundle, tmp_path: Path) -> None:
    both, home = tiny_bundle("tiny-idefics3", "int4", *BOTH), tmp_path / "cache"
    environment = os.environ | {"SMOL_EDGE_HOME": str(home)}
    short = ("--runs", "1", "--tokens", "2", "--threads", "1")
    result = smol_edge("bench", both, *short, "--store", "--json", env=environment)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert list(said["engines"]) == [
        "onnxruntime",
        "openvino",
        "vision=onnxruntime,decoder=openvino",
        "vision=openvino,decoder=onnxruntime",
    ]
    for engine, row in said["engines"].items():
        (run,) = row["runs"]
        used = [run["engines"][half]["engine"] for half in ("vision", "decoder")]
        assert used == [engines.read_wish(engine)[half] for half in ("vision", "decoder")]
        assert row["peak RSS MB"] == run["peak_rss_bytes"] / 1e6
    found = smol_edge("run", STORY, "--model", both, "--threads", "1", "--max-tokens", "1", "--json", env=environment)
    picks = json.loads(found.stdout)["engines"]
    assert engines.engine_text(picks["vision"]["engine"], picks["decoder"]["engine"]) == said["fastest"]
    assert "measured on this machine" in picks["vision"]["why"]


def test_bench_of_a_single_engine_has_nothing_to_keep(tiny_bundle, tmp_path: Path) -> None:
    one = tiny_bundle("tiny-idefics3", "int4", "onnx")
    assert_fails(smol_edge("bench", one, "--store"), 2, "nothing to choose from", "--target both")
    without = smol_edge("bench", one, "--store", patch="sys.modules['openvino'] = None")
    assert_fails(without, 2, "pip install 'smol-edge[openvino]'")


def test_a_bench_that_fails_says_why(tiny_bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", "onnx"), tmp_path / "bundle"))
    data = bytearray((folder / "decoder.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "decoder.onnx.data").write_bytes(data)
    assert_fails(smol_edge("bench", folder, "--runs", "1"), 1, "onnxruntime", "decoder.onnx.data has changed")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"onnxruntime": 5.0, "openvino": 6.0}, "onnxruntime"),
        ({"onnxruntime": 5.0, "openvino": 4.9}, "onnxruntime"),  # less than chance
        (
            {"onnxruntime": 5.0, "openvino": 4.0, "vision=openvino,decoder=onnxruntime": 3.9},
            "vision=openvino,decoder=onnxruntime",
        ),
    ],
)
def test_the_fastest_must_be_faster_by_more_than_chance(seconds: dict[str, float], expected: str) -> None:
    assert fastest(seconds) == expected


def test_an_answer_is_timed_as_if_it_had_all_its_tokens() -> None:
    """One that ends early is not taken for a fast one."""
    long = {"ttft_ms": 1000.0, "decode_tokens_per_s": 10.0, "generated_tokens": 11}
    short = {"ttft_ms": 1000.0, "decode_tokens_per_s": 10.0, "generated_tokens": 3}
    assert answer_seconds([long], 11) == answer_seconds([short], 11) == pytest.approx(2.0)


def test_settings_reach_the_engines(tiny_bundle) -> None:
    """A property that openvino does not have is refused by it; onnxruntime takes any entry."""
    folder = tiny_bundle("tiny-idefics3", "int4", *BOTH)
    with pytest.raises(EngineError, match="SPEED_OF_LIGHT"):
        SmolVLM.load(folder, engine="openvino", engine_options={"openvino": {"SPEED_OF_LIGHT": 1}})
    with SmolVLM.load(
        folder, engine="onnxruntime", engine_options={"onnxruntime": {"session.intra_op.allow_spinning": "0"}}
    ) as model:
        assert model.generate([], STORY, max_tokens=1).timings.generated_tokens == 1


@pytest.mark.parametrize(
    "options", ["fast", {"abacus": {}}, {"openvino": "u8"}, {"openvino": {1: 2}}, {"openvino": {"A": [1]}}]
)
def test_settings_that_make_no_sense(options: object) -> None:
    with pytest.raises(RequestError, match="engine_options"):
        check_engine_options(options)


def test_settings_on_the_command_line() -> None:
    read = read_engine_options(["openvino.KV_CACHE_PRECISION=u8", "onnxruntime.session.a=b=c", "openvino.X="])
    assert read == {"openvino": {"KV_CACHE_PRECISION": "u8", "X": ""}, "onnxruntime": {"session.a": "b=c"}}
    for text in ("KV_CACHE_PRECISION=u8", "openvino.X", "openvino.=1", ""):
        with pytest.raises(RequestError, match="--engine-option"):
            read_engine_options([text])
