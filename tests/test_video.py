"""Videos: which frames are taken of files, animations and folders, and what is said of those that cannot be read."""

import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import frame, number_of, write_clip, write_frames, write_gif, write_sound
from PIL import Image
from released_files import RELEASED

import smolvlm_edge.pictures.video
from smolvlm_edge import ImageError, RequestError, Video, VideoError
from smolvlm_edge.bundle.config import VideoConfig
from smolvlm_edge.pictures.images import Tiles
from smolvlm_edge.pictures.video import Clip, as_video, read_clip
from smolvlm_edge.pictures.video.container import Container

RULES = VideoConfig.from_folder(RELEASED)
SMALL = replace(RULES, frame=replace(RULES.frame, longest_edge=32, tile_size=16))
"""The released rules with tiles of 16 pixels."""


def read(source: Video | Path | bytes, **wishes: object) -> Clip:
    video = source if isinstance(source, Video) else Video(source, **wishes)
    return read_clip(video, SMALL)


def seen(clip: Clip) -> list[int]:
    """The numbers of the frames in a clip."""
    return [number_of(Image.fromarray(tiles.squares[0]).resize((64, 48))) for tiles in clip.frames]


# -- files ----------------------------------------------------------------------------------------------------------

FORMATS = {
    "mp4": {},
    "mov": {"codec": "mjpeg", "pixel_format": "yuvj444p"},
    "mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "webm": {"codec": "libvpx-vp9"},
    "avi": {"codec": "mpeg4"},
    "ts": {"pixel_format": "yuv422p10le"},
    "flv": {},
    "wmv": {"codec": "msmpeg4"},
    "m2ts": {"codec": "libx264", "options": {"mpegts_m2ts_mode": "1"}},
    "m4v": {"codec": "libx264rgb", "pixel_format": "rgb24"},
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_frame_a_second_of_every_format(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 40, rate=10, **FORMATS[suffix])
    clip = read(path)
    assert seen(clip) == [0, 13, 26, 39]
    assert clip.timeline.times == pytest.approx((0, 1.3, 2.6, 3.9))
    assert clip.timeline.stamps == ("00:00", "00:01", "00:02", "00:03")
    assert clip.timeline.duration == pytest.approx(4, abs=0.2)
    assert as_video(path) == Video(path)
    assert seen(read(path.read_bytes())) == seen(clip)


@pytest.mark.parametrize("gop", [1, 7, 250])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_each_frame_is_the_right_one_wherever_keyframes_are(tmp_path: Path, suffix: str, gop: int) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 40, rate=10, gop=gop)
    assert seen(read(path, frames=40)) == list(range(40))
    assert seen(read(path, frames=5, start=0.5)) == [5, 13, 22, 30, 39]
    assert seen(read(path, frames=2, start=1.2, end=3)) == [12, 29]


def test_a_part_keeps_the_time_of_the_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", 200, rate=1)
    timeline = read(path, start=90, end=95).timeline
    assert timeline.duration == pytest.approx(200)
    assert timeline.stamps == ("01:30", "01:31", "01:32", "01:33", "01:34")
    assert read(path, start=198.2).timeline.stamps == ("03:19",)


def test_rotation_and_odd_sizes(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = 255  # the left half is white
    turned = {
        0: (slice(None), slice(0, 6)),
        90: (slice(10, 16), slice(None)),  # counterclockwise: left goes to the bottom
        180: (slice(None), slice(10, 16)),
        270: (slice(0, 6), slice(None)),
    }
    for rotation, bright in turned.items():
        path = write_clip(tmp_path / f"{rotation}.mp4", [pixels] * 3, rotation=rotation)
        square = read(path).frames[0].squares[0]
        assert square[bright].min() > 200, rotation
        assert square.mean() == pytest.approx(127, abs=8)
    odd = write_clip(tmp_path / "odd.mkv", [np.full((37, 51, 3), 120, np.uint8)] * 3, codec="ffv1", pixel_format="bgr0")
    assert read(odd).frames[0].squares[0].mean() == pytest.approx(120, abs=1)


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    """Four seconds of ten frames each, then nothing new for four."""
    milliseconds = [*range(0, 4000, 100), 8000]
    path = write_clip(tmp_path / "variable.mkv", 41, milliseconds=milliseconds)
    clip = read(path, frames=9)
    assert clip.timeline.duration == pytest.approx(8.1, abs=0.2)
    for number, time in zip(seen(clip), clip.timeline.times, strict=True):
        shown = max(index for index, start in enumerate(milliseconds) if start <= 1000 * time + 5)
        assert number == shown % 40
    assert len(set(clip.timeline.times)) == len(clip.frames) < 9, "the frame that stands for four seconds is given once"


def test_a_recording_without_length_or_index(tmp_path: Path) -> None:
    """As browsers and a crash leave it."""
    path = write_clip(tmp_path / "live.webm", 40, codec="libvpx-vp9", options={"live": "1"})
    clip = read(path)
    assert clip.timeline.duration == pytest.approx(4, abs=0.2)
    assert seen(clip) == [0, 13, 26, 39]


def test_fragments(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "dash.mp4", 40, options={"movflags": "frag_keyframe+empty_moov"})
    assert seen(read(path)) == [0, 13, 26, 39]


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    clip = read(write_clip(tmp_path / "one.mp4", 1))
    assert seen(clip) == [0]
    assert clip.timeline.stamps == ("00:00",)


def test_sound_beside_the_pictures_is_left_alone(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "sound.mp4", 40, sound_s=4.5)
    assert seen(read(path)) == [0, 13, 26, 39]


# -- a long film ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours at two frames a second, a keyframe every six seconds."""
    pictures = [frame(number, (16, 16)) for number in range(40)] * 360
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", pictures, rate=2, codec="mpeg4", gop=12)


def test_of_a_film_only_what_is_around_the_frames_is_decoded(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], Container._decoded

    def counted(container: Container) -> object:
        for each in decode(container):
            decoded.append(each.pts)
            yield each

    monkeypatch.setattr(Container, "_decoded", counted)
    clip = read(film)
    assert clip.timeline.stamps[:2] == ("00:01", "01:55")
    assert clip.timeline.stamps[-1] == "119:59"
    assert len(clip.frames) == 64
    assert len(decoded) <= 64 * (12 + 2), "no more than a group of pictures for each frame, of 14,400 frames"


def test_one_full_frame_is_held_at_a_time(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    cut = smolvlm_edge.pictures.video.cut

    def watched(image: Image.Image, *arguments: object, **options: object) -> Tiles:
        assert not any(reference() for reference in alive), "earlier frames are gone"
        alive.append(weakref.ref(image))
        return cut(image, *arguments, **options)

    monkeypatch.setattr(smolvlm_edge.pictures.video, "cut", watched)
    read(film, frames=10)
    assert len(alive) == 10


# -- animations, folders, lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True})], ids=["GIF", "APNG", "WebP"]
)
def test_animated_pictures(tmp_path: Path, suffix: str, options: dict[str, bool]) -> None:
    path = write_gif(tmp_path / f"animation.{suffix}", 6, 500, **options)
    clip = read(path)
    assert clip.timeline.duration == pytest.approx(3)
    assert seen(clip) == [0, 2, 5]
    assert clip.timeline.stamps == ("00:00", "00:01", "00:02")
    assert as_video(path) == Video(path)
    assert seen(read(path.read_bytes())) == [0, 2, 5]


def test_an_animations_own_rhythm(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "rhythm.gif", 4, [100, 100, 5000, 100])
    clip = read(path)
    assert clip.timeline.duration == pytest.approx(5.3)
    assert seen(clip) == [0, 2], "what is shown at 0, 1.3, 2.7 and 4 s"


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    first, second = (Image.new("RGBA", (32, 32), (255, 0, 0, alpha)) for alpha in (0, 255))
    first.save(tmp_path / "see.png", save_all=True, append_images=[second], duration=1000)
    clip = read(tmp_path / "see.png")
    assert (clip.frames[0].squares[0] == 255).all()
    assert (clip.frames[1].squares[0] == (255, 0, 0)).all()


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    for name in ("still.gif", "still.png", "still.webp", "still.jpg", "still.avif"):
        Image.fromarray(frame(3)).save(tmp_path / name)
        assert as_video(tmp_path / name) is None, name
        assert as_video((tmp_path / name).read_bytes()) is None, name
    assert as_video(Image.fromarray(frame(3))) is None
    assert as_video(frame(3)) is None


def test_a_folder_of_numbered_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", 5)  # frame-8.png ... frame-12.png
    (folder / "notes.txt").write_text("not a frame")
    clip = read(folder)
    assert seen(clip) == [0, 1, 2, 3, 4], "in the order of the numbers, not of the names"
    assert clip.timeline.stamps == ("00:00", "00:01", "00:02", "00:03", "00:04")
    assert seen(read(folder, fps=2.5)) == [0, 4]
    assert as_video(str(folder)) == Video(str(folder))


def test_a_list_of_frames(tmp_path: Path) -> None:
    pictures = [frame(number) for number in range(20)]
    clip = read(Video(pictures, fps=10))
    assert seen(clip) == [0, 19]
    assert clip.timeline.times == (0, 1.9)
    half = read(Video([Image.fromarray(each) for each in pictures[:10]], fps=5, frames=3))
    assert seen(half) == [0, 4, 9]


# -- what cannot be read --------------------------------------------------------------------------------------------


def assert_refused(source: object, *words: str, error: type[Exception] = VideoError, **wishes: object) -> None:
    with pytest.raises(error) as caught:
        read(Video(source, **wishes))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", [np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8) for n in range(40)]
    )
    data = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert_refused(tmp_path / "cut.mp4", "cut.mp4", "damaged or cut off")
    (tmp_path / "header.mp4").write_bytes(data[:40])
    assert_refused(tmp_path / "header.mp4", "header.mp4", "damaged or cut off")
    (tmp_path / "holes.mp4").write_bytes(data[:200] + bytes(len(data) // 2) + data[200 + len(data) // 2 :])
    assert_refused(tmp_path / "holes.mp4", "holes.mp4", "damaged")
    assert_refused(data[: len(data) // 2], "the video", "damaged or cut off")


def half_a_file(path: Path) -> Path:
    """The first half of six seconds that cannot be compressed."""
    pictures = [np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8) for number in range(60)]
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    whole = write_clip(path, pictures, options=options, gop=5, codec=codec).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "flv"])
def test_a_file_that_ends_too_soon_says_so(tmp_path: Path, suffix: str) -> None:
    path = half_a_file(tmp_path / f"cut.{suffix}")
    assert_refused(path, path.name, "cut off")
    assert len(read(path, end=1.5).frames) == 2, "what is there can be had"


@pytest.mark.parametrize("suffix", ["avi", "ts"])
def test_where_a_file_does_not_say_its_length_half_of_it_is_a_shorter_video(tmp_path: Path, suffix: str) -> None:
    clip = read(half_a_file(tmp_path / f"cut.{suffix}"))
    assert clip.timeline.duration == pytest.approx(3, abs=0.3)


def test_files_without_pictures(tmp_path: Path) -> None:
    for name in ("sound.m4a", "sound.mka"):
        assert_refused(write_sound(tmp_path / name), name, "no pictures, only sound")


def test_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert_refused(tmp_path / "empty.mp4", "empty.mp4", "0 bytes", error=ImageError)
    assert_refused(tmp_path / "none.mp4", "none.mp4", "does not exist", error=ImageError)
    (tmp_path / "letter.mp4").write_text("a letter, not a video")
    assert_refused(tmp_path / "letter.mp4", "letter.mp4", "no video of a known format")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://localhost/a.ts\n")
    assert_refused(tmp_path / "list.mp4", "no video of a known format")
    (tmp_path / "nothing").mkdir()
    assert_refused(tmp_path / "nothing", "without numbered frames")
    assert_refused([], "one frame", error=RequestError)


def test_two_frames_with_one_number(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    Image.fromarray(frame(0)).save(folder / "other-9.jpg")
    assert_refused(folder, "frame-9.png", "other-9.jpg", "same number")


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"start": 4}, ["4.0 s", "start"]),
        ({"start": 2, "end": 2}, ["end"]),
        ({"start": -1}, ["start"]),
        ({"frames": 0}, ["frames", "1"]),
        ({"frames": 1000}, ["frames", "999"]),
        ({"fps": 0}, ["fps"]),
        ({"fps": 10}, ["clip.mp4", "frame rate of its own"]),
    ],
)
def test_wishes_that_make_no_sense(tmp_path: Path, wishes: dict[str, float], words: Sequence[str]) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(RequestError) as caught:
        read(path, **wishes)
    assert all(word in str(caught.value) for word in words), caught.value


def test_without_pyav_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = write_gif(tmp_path / "animation.gif")
    assert seen(read(path)) == [0, 2, 5], "Pillow reads animations"
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    assert_refused(tmp_path / "clip.mp4", "clip.mp4", "pip install 'smol-edge[video]'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_because_it_may_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe is a pipe or a device"):
        as_video(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "a pipe or a device", error=ImageError)
