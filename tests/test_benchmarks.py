"""The comparison with peers: what is measured of a process, what is said of one that fails, what the table shows."""

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import classes
import detail
from curves import Panel, draw
from environments import GGML_OPTIONS, cmake_options
from measuring import Asker, Failed, Question, machine, processor_class, run
from systems import System, Work, systems
from tables import table

from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.graphs.choice import TABLE

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
QUESTION = Question("picture", ("a.png",), "describe", "<image>describe", 4, 2)
REPORT = {
    "load_ms": 500.0,
    "preprocess_ms": 10.0,
    "vision_ms": 2000.0,
    "prefill_ms": 250.0,
    "ttft_ms": 2260.0,
    "decode_tokens_per_s": 40.0,
    "second_ttft_ms": None,
    "tiles": 4,
    "prompt_tokens": 100,
    "generated_tokens": 4,
    "text": "A boat.",
    "versions": {"peer": "1.2"},
}


def peer(program: str) -> System:
    return System((sys.executable, "-c", program), {"folder": "here"}, ())


def test_a_run_has_the_peers_report_and_what_its_process_took() -> None:
    program = (
        "import json, sys; asked = json.loads(sys.argv[1]); held = bytearray(300_000_000)\n"
        "print('noise'); print(json.dumps({'asked': asked}))"
    )
    found = run(peer(program), QUESTION, timeout=60)
    assert found["asked"] == {
        "model": {"folder": "here"},
        "pictures": ["a.png"],
        "prompt": "describe",
        "rendered": "<image>describe",
        "tokens": 4,
        "threads": 2,
        "split": True,
    }
    assert found["peak_rss_bytes"] > 300_000_000
    assert found["cpu_s"] > 0


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; print('first', file=sys.stderr); sys.exit('no such operator')", "no such operator"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('no report')", "printed no report"),
    ],
)
def test_why_a_peer_failed(program: str, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        run(peer(program), QUESTION, timeout=60)


def test_a_peer_that_never_ends_is_ended() -> None:
    with pytest.raises(Failed, match="no answer in time"):
        run(peer("import time; time.sleep(100)"), QUESTION, timeout=1)


def test_the_table_has_medians_ranges_and_reasons() -> None:
    runs = [REPORT | {"ttft_ms": ms, "peak_rss_bytes": 400e6, "cpu_s": 5.0} for ms in (2000.0, 9000.0, 3000.0)]
    report = {
        "machine": {
            "processor": "P1",
            "class": "x86 with AVX2",
            "extensions": ["avx2"],
            "cores": 2,
            "system": "Linux",
            "python": "3.11",
            "date": "2026-11-23",
        },
        "asked": {"picture": "china.jpg", "threads": 2, "busy": 1, "runs": 3, "depths": [1000]},
        "failed": {"other": "needs a GPU"},
        "systems": {"peer": {"bytes_on_disk": 123_000_000, "questions": {"picture": runs}}},
    }
    headings, medians, ranges = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table(report).splitlines()
        if line.startswith(("| |", "| peer"))
    )
    shown = dict(zip(headings, medians, strict=True))
    assert shown["time to first token s"] == "3.00"
    assert shown["encode one tile s"] == "0.50"
    assert shown["prefill tok/s"] == "400"
    assert shown["peak RSS MB"] == "400"
    assert shown["disk MB"] == "123"
    assert shown["second question s"] == shown["… at 1,000"] == "–"
    assert "2.00 – 9.00" in ranges
    assert "- other: needs a GPU" in table(report)
    assert "beside 1 other busy process" in table(report)


def test_a_question_of_a_depth_has_that_many_tokens() -> None:
    asker = Asker(CHECKPOINT, tokens=4, threads=2)
    question = asker.of_depth(500)
    ids = asker._encoder.tokenizer.encode(question.rendered, add_special_tokens=False).ids
    assert abs(len(ids) - 500) <= 2  # the last word may merge with what follows it


def test_llama_cpp_is_never_built_for_what_only_seems_there() -> None:
    options = cmake_options()
    assert "-DGGML_NATIVE=OFF" in options
    assert "-DGGML_AMX_INT8=OFF" in options
    assert not [option for option in options if "AMX" in option and option.endswith("=ON")]
    assert len([option for option in options if option.split("=")[0][2:] in GGML_OPTIONS]) == len(GGML_OPTIONS)


def test_other_weights_get_files_of_their_own(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"one")
    before = Work(checkpoint, tmp_path, {}).models
    (checkpoint / "model.safetensors").write_bytes(b"other")
    assert Work(checkpoint, tmp_path, {}).models != before


def test_every_peer_is_among_the_systems(tmp_path: Path) -> None:
    names = " ".join(name for name, _ in systems(Work(CHECKPOINT, tmp_path, {})))
    for peer_name in ("smol-edge int4", "llama.cpp", "optimum-intel", "transformers bfloat16", "transformers.js"):
        assert peer_name in names


def test_curves_are_one_drawing() -> None:
    svg = draw([Panel("time, s", "tiles", {"a < b": [(1, 2.0), (5, 9.5)], "nothing": []})])
    root = ET.fromstring(svg)
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 1
    assert "a < b" in "".join(root.itertext())
    assert json.dumps("nothing") not in svg


def report_of(processor: str, date: str, tile_ms: float) -> dict[str, object]:
    run = REPORT | {"vision_ms": 4 * tile_ms, "peak_rss_bytes": 400e6}
    return {
        "machine": {"processor": "P1", "class": processor, "date": f"{date}T10:00:00+00:00"},
        "asked": {"picture": "china.jpg", "threads": 2, "runs": 1},
        "systems": {"smol-edge int4": {"questions": {"picture": [run]}}, "other": {"questions": {}}},
    }


def test_one_result_is_kept_of_a_class_and_the_latest_counts(tmp_path: Path) -> None:
    results = tmp_path / "results"
    kept = []
    for number, (processor, tile_ms) in enumerate([("x86 with AVX2", 1400.0), ("any other, neon", 9.0)]):
        for date in ("2026-01-01", "2026-02-02"):
            report = tmp_path / f"{number}.json"
            report.write_text(json.dumps(report_of(processor, date, tile_ms)))
            kept.append(classes.keep(report, results).name)
    assert kept == ["x86-with-avx2.json"] * 2 + ["any-other-neon.json"] * 2
    assert len(list(results.iterdir())) == 2
    shown = classes.table(json.loads(path.read_text()) for path in results.iterdir())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if "smol-edge" in line]
    assert [row[:3] for row in rows] == [
        ["any other, neon", "smol-edge int4", "0.01"],
        ["x86 with AVX2", "smol-edge int4", "1.40"],
    ]
    assert "2026-01-01" not in shown
    assert "- x86 with AVX2: P1, 2 threads, china.jpg, medians of 1 runs, 2026-02-02" in shown


def test_the_page_shows_the_kept_results() -> None:
    """`python benchmarks/classes.py` was run after the last `compare.py --keep`."""
    page = classes.PAGE.read_text(encoding="utf-8")
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in classes.RESULTS.glob("*.json")]
    assert classes.written(page, classes.table(reports)) == page


def test_a_machine_says_its_class() -> None:
    assert machine()["class"] == processor_class()
    assert processor_class().partition(",")[0] in {row.processor for row in TABLE}


def test_every_setting_of_detail_is_told_of_ordinary_sizes() -> None:
    """By the rules of the family: china.jpg has 13 tiles, as in docs/engines.md; auto never has more than high."""
    config = replace(ImageConfig.from_folder(CHECKPOINT), longest_edge=2048, tile_size=512)
    rows = {row[0]: row[2:] for row in map(cells_of, [*detail.sizes_table(config)][2:])}
    assert rows["china.jpg"][2] == "13"
    assert rows["icon"] == ["1", "1", "17", "94%"]
    assert all(int(low) <= int(auto) <= int(high) for low, auto, high, _ in rows.values())


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]
