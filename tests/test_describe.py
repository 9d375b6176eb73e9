"""`smol-edge describe`: many pictures into one file, whatever they are and however often it is stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from filelock import FileLock
from PIL import Image

from smolvlm_edge import ImageError, SmolVLM
from smolvlm_edge.captions import files
from smolvlm_edge.captions.files import find_pictures

PROMPT = "Describe this image."
NO_ENGINE = (
    "import smolvlm_edge.model; smolvlm_edge.model.open_engines = None"  # a mistake is found before a model is loaded
)
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix != ".jpg" else "JPEG")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight pictures, of which no two are described alike, and what else lies about in such a folder."""
    folder = tmp_path / "photos"
    names = ["2.png", "10.jpg", "Ünïcode 猫.png", "b/1.png", "b/a/x.PNG", "b/1 2.png", "c/1.png", "line\nbreak.png"]
    for seed, name in enumerate(names if os.name == "posix" else names[:-1]):
        draw(folder / name, seed)
    draw(folder / ".thumbnails" / "2.png")
    (folder / "._2.png").write_bytes(b"of a Mac")
    (folder / "notes.txt").write_text("of no picture", encoding="utf-8")
    return folder


def describe(bundle: Path, *arguments: str | Path, out: Path, patch: str = "", **options):
    options.setdefault("cwd", out.parent)
    command = ("describe", *arguments, "--out", out, "--model", bundle, "--max-tokens", "3", "--detail", "low")
    return smol_edge(*command, patch=patch, **options)


def read(out: Path) -> tuple[dict, list[dict]]:
    first, *lines = [json.loads(line) for line in out.read_bytes().splitlines()]
    return first, lines


# -- whole runs -------------------------------------------------------------------------------------


def test_every_picture_of_a_folder_gets_a_line_in_order(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    result = describe(bundle, "photos", out=out)
    assert result.returncode == 0, result.stderr
    begin, lines = read(out)
    assert {key: begin[key] for key in ("prompt", "quant", "engine", "max_tokens", "detail")} == {
        "prompt": PROMPT,
        "quant": "fp32",
        "engine": "onnxruntime",
        "max_tokens": 3,
        "detail": "low",
    }
    names = [line["file"].removeprefix("photos/") for line in lines]
    in_order = ["2.png", "10.jpg", "line\nbreak.png", "Ünïcode 猫.png", "b/1 2.png", "b/1.png", "b/a/x.PNG", "c/1.png"]
    assert sorted(names) == sorted(in_order)
    assert [name for name in names if "/" not in name] == in_order[:4]
    assert [name for name in names if "/" in name] == in_order[4:]
    with SmolVLM.load(bundle) as model:
        for line in lines:
            answer = model.generate(tmp_path / line["file"], PROMPT, max_tokens=3, detail="low")
            assert (line["text"], line["finish_reason"]) == (answer.text, answer.finish_reason)
    assert result.stdout == f"8 described, 0 failed, 0 before: {out}\n"
    assert result.stderr == "note: files that are no pictures, and left out: 1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.jsonl", "photos"]


def test_failures_are_recorded_told_and_tried_again(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("no picture", encoding="utf-8")
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    vanishes = """
from smolvlm_edge import SmolVLM
import os
generate_many = SmolVLM.generate_many
def vanishing(*arguments, **options):
    os.unlink("photos/c/1.png")
    return generate_many(*arguments, **options)
SmolVLM.generate_many = vanishing
"""
    result = describe(bundle, "photos", out=out, patch=vanishes)
    assert result.returncode == 6, result.stderr
    assert "4 of 10 pictures failed" in result.stderr.splitlines()[-1]
    assert len([line for line in result.stderr.splitlines() if line.startswith("failed: ")]) == 4
    assert "6 described, 4 failed, 0 before" in result.stdout
    failed = {line["file"]: line["error"] for line in read(out)[1] if "error" in line}
    assert failed.keys() == {f"photos/{name}" for name in ("empty.png", "text.jpg", "2.png", "c/1.png")}
    assert "does not exist" in failed["photos/c/1.png"]
    assert "empty" in failed["photos/empty.png"]

    (photos / "2.png").write_bytes(whole)
    again = describe(bundle, "photos/2.png", "photos/text.jpg", out=out)
    assert (again.returncode, again.stdout) == (6, f"1 described, 1 failed, 0 before: {out}\n")
    counts = json.loads(describe(bundle, "photos", "--json", out=out).stdout)
    assert {key: counts[key] for key in ("described", "failed", "before")} == {"described": 0, "failed": 2, "before": 7}
    names = [line["file"] for line in read(out)[1]]
    assert len(names) == len(set(names)) == 10, "the one that is gone keeps its line"


# -- stopped runs -----------------------------------------------------------------------------------


def stopped_at(line: int, how: str) -> str:
    """A run that ends while it writes its nth line."""
    return f"""
import os, signal
from smolvlm_edge.records import Records, _encoded
add, added = Records.add, []
def stopped(self, line):
    added.append(line)
    if len(added) == {line}:
        {how}
    add(self, line)
Records.add = stopped
"""


HALF_A_LINE = "self.file.write(_encoded(line)[:30]); self.file.flush(); os.kill(os.getpid(), signal.SIGKILL)"


@posix_only
def test_killed_again_and_again_nothing_is_lost_and_nothing_twice(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out, at_once = tmp_path / "killed.jsonl", tmp_path / "at once.jsonl"
    assert describe(bundle, "photos", out=at_once).returncode == 0
    for line, how in ((1, "os.kill(os.getpid(), signal.SIGKILL)"), (3, HALF_A_LINE), (2, HALF_A_LINE)):
        assert describe(bundle, "photos", out=out, patch=stopped_at(line, how)).returncode == -9
    result = describe(bundle, photos, out=out, cwd=tmp_path.parent)  # the same pictures, from elsewhere
    assert result.stdout == f"5 described, 0 failed, 3 before: {out}\n"
    assert out.read_bytes() == at_once.read_bytes()
    nothing_left = describe(bundle, "photos", out=out, patch=NO_ENGINE)
    assert nothing_left.stdout == f"0 described, 0 failed, 8 before: {out}\n"
    assert out.read_bytes() == at_once.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at once.jsonl", "killed.jsonl", "photos"]


@posix_only
@pytest.mark.parametrize(("kill", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_it_says_how_far_it_came(
    bundle: Path, photos: Path, tmp_path: Path, kill: str, exit_code: int
) -> None:
    out = tmp_path / "captions.jsonl"
    result = describe(bundle, "photos", out=out, patch=stopped_at(3, f"os.kill(os.getpid(), signal.{kill})"))
    assert result.returncode == exit_code
    if kill == "SIGINT":
        assert result.stderr.splitlines()[-2:] == ["note: 2 of 8 are done; the same command goes on", "interrupted"]
    assert len(read(out)[1]) == 2
    assert describe(bundle, "photos", out=out).stdout == f"6 described, 0 failed, 2 before: {out}\n"


def test_a_file_of_another_run_is_refused_before_a_model_is_loaded(
    bundle: Path, tiny_bundle, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "captions.jsonl"
    assert describe(bundle, "photos/2.png", out=out).returncode == 0
    before = out.read_bytes()
    for model, arguments, words in [
        (bundle, ("--prompt", "Read it."), [f'prompt ("{PROMPT}" there, "Read it." here)']),
        (bundle, ("--longest-edge", "64"), ["longest_edge (null there, 64 here)"]),
        (tiny_bundle("tiny-idefics3", "int8"), (), ['quant ("fp32" there, "int8" here)']),
        (tiny_bundle("tiny-smolvlm", "fp32"), (), ["model"]),
    ]:
        result = describe(model, "photos/2.png", *arguments, out=out, patch=NO_ENGINE)
        assert_fails(result, 2, "captions.jsonl", "--out", *words)
    with FileLock(tmp_path / ".captions.jsonl.lock"):
        assert_fails(describe(bundle, "photos/2.png", out=out, patch=NO_ENGINE), 2, "another run is writing")
    assert out.read_bytes() == before


def test_mistakes_are_found_before_a_model_is_looked_for(photos: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no model"
    for arguments, exit_code, words in [
        (("phots", "--out", "c.jsonl"), 5, ["phots does not exist"]),
        (("photos/*.webp", "--out", "c.jsonl"), 5, ["photos/*.webp matches no file"]),
        (("photos/**x", "--out", "c.jsonl"), 5, ["photos/**x"]),
        (("photos/notes.txt", "--out", "c.jsonl"), 5, ["no picture"]),
        (("photos", "--out", "gone/c.jsonl"), 2, ["gone is no folder"]),
        (("photos", "--out", "photos"), 2, ["photos is no file"]),
        (("photos", "--out", "c.jsonl", "--prompt", ""), 2, ["prompt is empty"]),
        (("photos", "--out", "c.jsonl", "--max-tokens", "0"), 2, ["max_tokens"]),
    ]:
        assert_fails(smol_edge("describe", *arguments, "--model", nowhere, cwd=tmp_path), exit_code, *words)
    assert smol_edge("describe", "photos", cwd=tmp_path).returncode == 2, "--out is needed"


def test_ten_thousand_files(bundle: Path, tmp_path: Path) -> None:
    """All of them damaged, so that it takes seconds: each is recorded, and a second run starts where it should."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number}.png").write_bytes(b"no picture")
    out = tmp_path / "captions.jsonl"
    killed = describe(bundle, "many", out=out, patch=stopped_at(7000, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert killed.returncode == -9
    assert len(read(out)[1]) == 6999
    draw(folder / "9.png")
    result = describe(bundle, "many", out=out)
    assert result.returncode == 6
    assert "1 described, 9999 failed, 0 before" in result.stdout
    assert [line["file"] for line in read(out)[1]] == [f"many/{number}.png" for number in range(10_000)]


@posix_only
def test_progress_is_shown_on_a_terminal_only(bundle: Path, photos: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    program = "from smolvlm_edge.cli import main\nmain()"
    arguments = ["describe", "photos", "--out", "c.jsonl", "--model", str(bundle), "--max-tokens", "3"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=120,
        check=False,
    )
    os.close(theirs)
    shown = b""
    while chunk := _read_some(ours):
        shown += chunk
    os.close(ours)
    assert (result.returncode, result.stdout) == (0, b"8 described, 0 failed, 0 before: c.jsonl\n")
    assert b"picture" in shown
    assert b"/8" in shown
    assert b"0:00:0" in shown, "how long the rest takes"


def _read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        return b""


# -- what the arguments mean ------------------------------------------------------------------------


def found(*arguments: str | Path, under: Path) -> list[str]:
    return [path.relative_to(under).as_posix() for path in find_pictures([str(argument) for argument in arguments])]


def test_files_folders_and_patterns_mean_each_picture_once(photos: Path) -> None:
    every = ["2.png", "10.jpg", "b/1 2.png", "b/1.png", "b/a/x.PNG", "c/1.png", "line\nbreak.png", "Ünïcode 猫.png"]
    whole = found(photos, under=photos)
    assert sorted(whole) == sorted(every)
    assert whole[:2] == ["2.png", "10.jpg"]
    assert found(photos / "c", photos / "2.png", photos / ".." / "photos" / "c", photos, under=photos)[:2] == [
        "c/1.png",
        "2.png",
    ]
    assert sorted(found(photos, photos / "**" / "*.png", photos / "*", under=photos)) == sorted(every)
    assert found(photos / "**" / "1*.png", under=photos) == ["b/1 2.png", "b/1.png", "c/1.png"]
    assert found(photos / "[0-9].*", under=photos) == ["2.png"]


def test_a_name_is_no_pattern_if_there_is_such_a_file(tmp_path: Path) -> None:
    for name in ("a.png", "[a].png", "x*.png", "xy.png"):
        if os.name == "posix" or "*" not in name:
            draw(tmp_path / name)
    assert found(tmp_path / "[a].png", under=tmp_path) == ["[a].png"]
    if os.name == "posix":
        assert found(tmp_path / "x*.png", under=tmp_path) == ["x*.png"]


def test_a_picture_without_a_pictures_name_has_to_be_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "picture.png").rename(tmp_path / "picture.download")
    with pytest.raises(ImageError, match="no picture there"):
        find_pictures([str(tmp_path)])
    assert found(tmp_path / "picture.download", under=tmp_path) == ["picture.download"]


@posix_only
def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    draw(tmp_path / "top" / "z" / "1.png")
    draw(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "top" / "a link to z").symlink_to("z")
    (tmp_path / "top" / "z" / "up").symlink_to("..")
    (tmp_path / "top" / "z" / "round").symlink_to("round")
    (tmp_path / "top" / "out").symlink_to("../elsewhere")
    (tmp_path / "top" / "also out").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to("../top")
    (tmp_path / "top" / "3.png").symlink_to("z/1.png")
    (tmp_path / "top" / "dead.png").symlink_to("nothing.png")
    os.mkfifo(tmp_path / "top" / "pipe.png")
    expected = ["3.png", "also out/2.png", "dead.png", "z/1.png"]
    assert found(tmp_path / "top", under=tmp_path / "top") == expected
    by_pattern = found(tmp_path / "top" / "**" / "*.png", under=tmp_path / "top")
    assert [name for name in by_pattern if name != "pipe.png"] == ["3.png", "dead.png", "z/1.png"]


@posix_only
def test_names_that_are_no_unicode(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    draw(tmp_path / "picture.png").rename(tmp_path / "odd" / os.fsdecode(b"\xff.png"))
    (tmp_path / "odd" / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    out = tmp_path / "captions.jsonl"
    result = describe(bundle, "odd", out=out)
    assert result.returncode == 6, result.stderr
    assert [os.fsencode(line["file"]) for line in read(out)[1]] == [b"odd/\xfe.png", b"odd/\xff.png"]
    again = describe(bundle, "odd", out=out)
    assert (again.returncode, again.stdout) == (6, f"0 described, 1 failed, 1 before: {out}\n")


@posix_only
def test_a_folder_that_may_not_be_read_is_told(photos: Path, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    assert found(photos, under=photos) == ["2.png", "10.jpg", "c/1.png", "line\nbreak.png", "Ünïcode 猫.png"]
    assert "Permission denied" in caplog.text


@posix_only
def test_patterns_end_however_many_ways_lead_to_a_folder(tmp_path: Path) -> None:
    deep = tmp_path / "top"
    for number in range(25):
        draw(deep / f"{number}.png")
        deep = deep / "a"
    every = found(tmp_path / "top", under=tmp_path)
    assert len(every) == 25
    for pattern in ("**/" * 30 + "*.png", "**/*/" * 12 + "**/*.png", "**"):
        assert set(found(tmp_path / "top" / pattern, under=tmp_path)) <= set(every)
    assert found(tmp_path / "top" / ("**/" * 30 + "*.png"), under=tmp_path) == every
    assert found(tmp_path / "top" / "**", under=tmp_path) == every


def test_heic_without_its_extra_is_counted_and_the_extra_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "picture_suffixes", lambda: {".png"})  # as where the extra is not installed
    draw(tmp_path / "1.png")
    for name in ("2.heic", "3.HEIC", "4.heif"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (tmp_path / "notes.txt").write_text("none")
    assert found(tmp_path, under=tmp_path) == ["1.png"]
    assert "pictures in HEIC, and left out: 3; to read them, pip install 'smol-edge[heic]'" in caplog.text
    assert "no pictures, and left out: 1" in caplog.text
