"""Videos as cameras, recorders and strangers make them: mirrored, late, slow, mislabelled, endless."""

import struct
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event

import av
import numpy as np
import pytest
from clips import frame, write_clip, write_gif
from PIL import Image
from sample_pictures import encoded
from test_images import png_chunk
from test_video import SMALL, read, seen

from smolvlm_edge import ImageError, StoppedError, Video, VideoError
from smolvlm_edge.pictures import video
from smolvlm_edge.pictures.video import as_video, pictures, read_clip
from smolvlm_edge.pictures.video.durations import durations_ms

CORNERS = np.zeros((32, 48, 3), np.uint8)
CORNERS[:16, :24], CORNERS[:16, 24:], CORNERS[16:, :24] = 240, 160, 80  # and 0 at the bottom right
MATRICES = {  # a, b, c, d of a display matrix, and what a player shows by it
    (1, 0, 0, 1): lambda array: array,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda array: np.rot90(array, 2),
    (0, 1, -1, 0): lambda array: np.rot90(array, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda array: array.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda array: np.rot90(array, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_turned_and_mirrored_as_the_display_matrix_says(matrix: tuple[int, ...], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [CORNERS] * 3)
    data, one = path.read_bytes(), 1 << 16
    place = data.index(b"tkhd") + 4 + 40  # the matrix of the track's header, which is of version 0
    a, b, c, d = (one * each for each in matrix)
    whole = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    assert data[place : place + 36] == struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    found = read(data[:place] + whole + data[place + 36 :]).frames[0].squares[0]
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(MATRICES[matrix](CORNERS))).resize((16, 16)))
    assert np.abs(found[2:6, 2:6].mean() - expected[2:6, 2:6].mean()) < 8
    assert np.abs(found[2:6, 10:14].mean() - expected[2:6, 10:14].mean()) < 8
    assert np.abs(found[10:14, 2:6].mean() - expected[10:14, 2:6].mean()) < 8


@pytest.mark.parametrize("late", [700, 5_000, 60_000])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "flv"])
def test_seconds_count_from_the_first_frame(suffix: str, late: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"late.{suffix}", 40, milliseconds=[late + 100 * each for each in range(40)])
    clip = read(path)
    assert clip.timeline.duration == pytest.approx(4, abs=0.25)
    assert seen(clip) == pytest.approx([0, 13, 26, 39], abs=1 if suffix == "flv" else 0)  # FLV says 4.2 seconds
    assert seen(read(path, start=2, frames=3)) == pytest.approx([20, 29, 39], abs=1 if suffix == "flv" else 0)


def test_a_matroska_length_may_be_that_of_the_pictures_alone(tmp_path: Path) -> None:
    """As mkvmerge writes it; FFmpeg writes when the last one ends."""
    path = write_clip(tmp_path / "late.mkv", 40, milliseconds=[3_000 + 100 * each for each in range(40)])
    data = path.read_bytes()
    assert data.count(b"00:00:07.000000000") == 1
    path.write_bytes(data.replace(b"00:00:07.000000000", b"00:00:04.000000000"))
    clip = read(path)
    assert clip.timeline.duration == pytest.approx(4, abs=0.25)
    assert seen(clip) == [0, 13, 26, 39]


SLOW = [
    [0, 100, 200, 300, 7_000, 7_100, 15_000, 22_000, 30_000],
    [0, 5_000, 5_100, 5_200, 5_300, 5_400, 5_500, 5_600, 20_000],
    [0, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000, 16_000],
]


@pytest.mark.parametrize("milliseconds", SLOW)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_no_frame_of_a_slow_video_is_missed(suffix: str, milliseconds: list[int], tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"slow.{suffix}", 9, rate=1, milliseconds=milliseconds)
    clip = read(path)
    assert seen(clip) == list(range(9))
    assert clip.timeline.times == pytest.approx([each / 1000 for each in milliseconds], abs=0.01)
    assert clip.timeline.duration >= milliseconds[-1] / 1000
    few = read(path, frames=3)
    assert len(few.frames) <= 3


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
def test_metadata_that_is_no_utf_8_costs_nobody_the_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"latin.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "MXnchen"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            made = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            made.pts = number
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count(b"MXnchen")
    assert seen(read(data.replace(b"MXnchen", b"M\xfcnchen"))) == [0, 13, 26, 39]


@pytest.mark.parametrize("length", [b"99999999:00:00.000", b"99:99:99.999999999"])
def test_a_length_that_cannot_be(length: bytes, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mkv", 40)
    data = path.read_bytes()
    (place,) = [data.index(b"00:00:04.000000000")]
    path.write_bytes(data[:place] + length.ljust(18, b"0")[:18] + data[place + 18 :])
    assert len(read(path, end=1).frames) == 1
    assert read(path, end=1).timeline.texts()


def test_what_the_decoder_raises_is_the_videos_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    for raised in (UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "invalid"), MemoryError(), ValueError("odd"), OSError()):

        def fail(*_: object, error: Exception = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr(av, "open", fail)
        with pytest.raises(VideoError, match=r"clip\.mp4 .*(damaged|memory)"):
            read(path)


@pytest.mark.parametrize("kind", ["video", "animation", "list"])
def test_a_deadline_ends_the_waiting_and_then_the_reading(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = {"video": lambda: write_clip(tmp_path / "clip.mp4"), "animation": lambda: write_gif(tmp_path / "a.gif", 20)}
    source = [frame(number) for number in range(40)] if kind == "list" else write[kind]()
    first, release, ended, cuts = Event(), Event(), Event(), []

    def slow(*_: object, **__: object) -> None:
        cuts.append(1)
        first.set()
        assert release.wait(60)

    def check() -> None:
        if first.is_set():
            raise StoppedError("the answer was cancelled")

    closing = video.closing
    monkeypatch.setattr(video, "cut", slow)
    monkeypatch.setattr(video, "closing", lambda footage: ended_with(closing(footage), ended))
    with pytest.raises(StoppedError):
        read_clip(Video(source, frames=20), SMALL, check)
    release.set()
    assert ended.wait(60)
    assert len(cuts) == 1, "nobody waits for the others"


@contextmanager
def ended_with(manager, ended: Event):
    with manager as footage:
        try:
            yield footage
        finally:
            ended.set()


# -- animations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True})])
def test_durations_are_read_without_decoding(suffix: str, options: dict[str, bool], tmp_path: Path) -> None:
    path = write_gif(tmp_path / f"a.{suffix}", 5, [100, 200, 40, 1000, 70], **options)
    assert durations_ms(path) == [100, 200, 40, 1000, 70]
    assert durations_ms(path, most=2) == [100, 200]
    still = tmp_path / f"still.{suffix}"
    Image.fromarray(frame(3)).save(still)
    assert durations_ms(still) == [0]


def test_a_default_picture_of_a_png_is_a_frame_as_pillow_has_it(tmp_path: Path) -> None:
    path = tmp_path / "default.png"
    first, *others = (Image.fromarray(frame(number)) for number in range(4))
    first.save(path, save_all=True, default_image=True, append_images=others, duration=500)
    with Image.open(path) as image:
        assert len(durations_ms(path)) == image.n_frames


def gif_bomb(side: int, frames: int) -> bytes:
    """The same large frame again and again, a few bytes each."""
    one = Image.new("P", (side, side))
    one.putpalette([0] * 768)
    data = encoded(one, "GIF")
    start = data.index(b"\x2c" + bytes(4))
    return data[:start] + data[start:-1] * frames + b";"


def png_bomb(side: int, frames: int) -> bytes:
    data = zlib.compress(bytes((side + 1) * side), 9)
    numbers = (0, *range(1, 2 * frames, 2))
    control = [struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 10, 0, 0) for number in numbers]
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    whole = [b"\x89PNG\r\n\x1a\n", head, png_chunk(b"acTL", struct.pack(">II", frames, 0))]
    whole += [png_chunk(b"fcTL", control[0]), png_chunk(b"IDAT", data)]
    for number in range(1, frames):
        whole.append(png_chunk(b"fcTL", control[number]))
        whole.append(png_chunk(b"fdAT", struct.pack(">I", 2 * number) + data))
    return b"".join([*whole, png_chunk(b"IEND", b"")])


def test_a_gif_whose_later_frame_is_larger_than_its_head_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing: 246 bytes that took 1.5 GB."""
    monkeypatch.setattr(pictures, "MAX_FRAME_PIXELS", 5_000)
    small, large = encoded(Image.new("P", (30, 20)), "GIF"), encoded(Image.new("P", (90, 60)), "GIF")
    start = large.index(b"\x2c" + bytes(4))
    for second, reads in ((small[small.index(b"\x2c" + bytes(4)) : -1], True), (large[start:-1], False)):
        video = Video(small[:-1] + second + b";", frames=2)
        with nullcontext() if reads else pytest.raises(ImageError, match="frames of more than 5,000 pixels"):
            assert read(video).frames


@pytest.mark.parametrize("bomb", [gif_bomb, png_bomb])
def test_an_animation_is_decoded_as_far_as_is_wanted_and_within_bounds(bomb, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(64, 500)
    assert len(data) < 100_000
    assert as_video(data) == Video(data)
    monkeypatch.setattr(pictures, "MAX_PIXELS_TOGETHER", 64 * 64 * 30)
    with pytest.raises(ImageError, match="500 frames of 64 x 64, more than 122,880 pixels together"):
        read(Video(data))
    went = []
    go_to = pictures.Animation._go_to
    monkeypatch.setattr(pictures.Animation, "_go_to", lambda self, at, check: (went.append(at), go_to(self, at, check)))
    assert len(read(Video(data, end=2)).frames) >= 1
    assert max(went) < 30, "2 s of a tenth each"


def test_an_endless_animation_is_refused() -> None:
    with pytest.raises(ImageError, match="more than 20,000 frames"):
        read(Video(gif_bomb(1, 20_001)))
