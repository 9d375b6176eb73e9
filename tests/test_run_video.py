"""`smol-edge run` and `SmolVLM` with videos, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from clips import frame, write_clip, write_frames, write_gif, write_sound
from command import assert_fails, smol_edge
from PIL import Image, ImageDraw

from smolvlm_edge import SmolVLM, Video

QUESTION = "What happens?"


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-smolvlm", "fp32")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 40, rate=10)


def moving_circle() -> list[np.ndarray]:
    """Four seconds of a red circle that moves to the right."""
    frames = []
    for number in range(40):
        picture = Image.new("RGB", (96, 96), "white")
        ImageDraw.Draw(picture).circle((20 + 1.4 * number, 48), 14, fill=(220, 30, 30))
        frames.append(np.asarray(picture))
    return frames


def test_the_demonstration_model_watches_a_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", moving_circle())
    result = smol_edge("run", "clip.mp4", QUESTION, "--model", "demo", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip().endswith(".")
    assert result.stdout.count("\n") == 1


def test_json_has_the_stamps(bundle: Path, clip: Path) -> None:
    options = ("--model", bundle, "--max-tokens", "3", "--json")
    report = json.loads(smol_edge("run", clip, QUESTION, *options).stdout)
    assert report["videos"] == [{"duration_s": 4.0, "stamps": ["00:00", "00:01", "00:02", "00:03"]}]
    assert report["tiles"] == 4
    part = json.loads(smol_edge("run", clip, QUESTION, "--start", "0:02", "--end", "3.5", *options).stdout)
    assert part["videos"] == [{"duration_s": 4.0, "stamps": ["00:02", "00:03"]}]
    few = json.loads(smol_edge("run", clip, QUESTION, "--frames", "2", *options).stdout)
    assert few["videos"] == [{"duration_s": 4.0, "stamps": ["00:00", "00:03"]}]
    assert json.loads(smol_edge("run", "Hi", *options).stdout)["videos"] == []


def test_whatever_moves_is_a_video(bundle: Path, clip: Path) -> None:
    folder = clip.parent
    write_gif(folder / "animation.gif", 6, 500)
    write_frames(folder / "frames", 4)
    options = ("--model", bundle, "--max-tokens", "2", "--json")
    for name, stamps in (("animation.gif", 3), ("frames", 4)):
        report = json.loads(smol_edge("run", folder / name, QUESTION, *options).stdout)
        assert [len(video["stamps"]) for video in report["videos"]] == [stamps]
    slow = json.loads(smol_edge("run", folder / "frames", QUESTION, "--fps", "0.5", *options).stdout)
    assert slow["videos"][0]["stamps"] == ["00:00", "00:02", "00:04", "00:06"]
    patch = f"import io; sys.stdin = io.TextIOWrapper(open({str(clip)!r}, 'rb'))"
    piped = json.loads(smol_edge("run", "-", QUESTION, *options, patch=patch).stdout)
    assert len(piped["videos"][0]["stamps"]) == 4


def test_pictures_and_videos_together(bundle: Path, clip: Path) -> None:
    """Each in its place: the pictures are cut into tiles as ever, the frames are not."""
    with SmolVLM.load(bundle) as model:
        picture = Image.fromarray(frame(5))
        alone = model.generate([picture], QUESTION, max_tokens=2).timings
        video = model.generate(Video(clip, frames=3), QUESTION, max_tokens=2)
        both = model.generate([picture, clip, Video(clip, start=3)], QUESTION, max_tokens=2)
    assert (video.timings.tiles, video.videos[0].stamps) == (3, ("00:00", "00:01", "00:03"))
    assert both.timings.tiles == alone.tiles + 4 + 1
    assert [timeline.stamps for timeline in both.videos] == [("00:00", "00:01", "00:02", "00:03"), ("00:03",)]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["missing.mp4", QUESTION], 5, ["missing.mp4", "does not exist"]),
        (["empty.mp4", QUESTION], 5, ["empty.mp4", "empty"]),
        (["text.mp4", QUESTION], 5, ["text.mp4", "no picture"]),
        (["cut.mp4", QUESTION], 5, ["cut.mp4", "damaged or cut off"]),
        (["sound.m4a", QUESTION], 5, ["sound.m4a", "only sound"]),
        (["nothing", QUESTION], 5, ["nothing", "numbered frames"]),
        (["picture.png", QUESTION, "--frames", "3"], 2, ["--frames", "there is none"]),
        (["clip.mp4", QUESTION, "--start", "9"], 2, ["4.0 s"]),
        (["clip.mp4", QUESTION, "--start", "3", "--end", "0:01"], 2, ["end after it starts"]),
        (["clip.mp4", QUESTION, "--fps", "3"], 2, ["frame rate of its own"]),
        (["clip.mp4", QUESTION, "--frames", "0"], 2, ["frames must be"]),
        (["clip.mp4"], 2, ["clip.mp4", "prompt"]),
        (["frames", QUESTION, "--frames", "120"], 2, ["context", "--frames"]),
    ],
)
def test_mistakes(bundle: Path, clip: Path, arguments: list[str], exit_code: int, words: list[str]) -> None:
    folder = clip.parent
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("a letter, not a video")
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:-300])
    (folder / "nothing").mkdir()
    Image.fromarray(frame(1)).save(folder / "picture.png")
    if "sound.m4a" in arguments:
        write_sound(folder / "sound.m4a")
    if "frames" in arguments:
        write_frames(folder / "frames", 120)
    assert_fails(smol_edge("run", *arguments, "--model", bundle, cwd=folder), exit_code, *words)


@pytest.mark.parametrize("time", ["soon", "1:2:3:4", "-1", "1e3", ""])
def test_times_that_are_none(bundle: Path, clip: Path, time: str) -> None:
    result = smol_edge("run", clip, QUESTION, f"--start={time}", "--model", bundle)
    assert result.returncode == 2
    assert "give seconds or MM:SS" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_pyav(bundle: Path, clip: Path) -> None:
    patch = "sys.modules['av'] = None"
    result = smol_edge("run", clip, QUESTION, "--model", bundle, patch=patch)
    assert_fails(result, 5, "clip.mp4", "pip install 'smol-edge[video]'")


def test_help_has_an_example() -> None:
    assert "clip.mp4" in smol_edge("run", "--help").stdout
