"""A video file -> the frames that are asked for, by PyAV (the extra [video]), which only this module imports.

Frames are found by the time they are shown at, so that a variable frame rate does no harm. From one to the next the
file is decoded on, or sought if there is a keyframe on the way: of a long film only what lies between a keyframe and
the frame after it is decoded, and no more than two frames are held.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from smolvlm_edge.errors import SmolEdgeError, VideoError
from smolvlm_edge.pictures.deadline import Check
from smolvlm_edge.pictures.pixels import MAX_PIXELS
from smolvlm_edge.pictures.sources import decoding, head_of, shown
from smolvlm_edge.pictures.video.frames import on_screen
from smolvlm_edge.pictures.video.upright import upright

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

SIGNATURES = (
    ("mov", (4,), b"ftyp"),
    ("mov", (4,), b"moov"),
    ("mov", (4,), b"mdat"),
    ("mov", (4,), b"wide"),
    ("matroska", (0,), b"\x1aE\xdf\xa3"),
    ("avi", (8,), b"AVI "),
    ("flv", (0,), b"FLV\x01"),
    ("asf", (0,), b"0&\xb2u\x8ef\xcf\x11"),
    ("ogg", (0,), b"OggS"),
    ("mpeg", (0,), b"\x00\x00\x01\xba"),
    ("mpegts", (0, 188, 376), b"G"),
    ("mpegts", (4, 196, 388), b"G"),
)
"""FFmpeg's name of a format, and the places where its files have a mark. A file is opened as what it was found to be:
FFmpeg left to guess would also open playlists, which name further files and addresses."""
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Pictures in an MP4 container."""
DEFAULT_RATE = 24
"""Frames per second where a file does not say (transformers' processing_smolvlm.py assumes the same)."""
SEEK_S = 10
"""Moments that are further apart than this are sought where the file has no index of its keyframes."""
MISSING_S = 1
"""A video may end this much before its file says so: sound may last longer."""
SLOW_RATE, MOST_TIMES = 2, 10_000
"""Of videos with fewer frames a second, and no more in all, every frame's time is read: the rate may vary."""
MAX_DURATION_S = 10_000_000
"""No recording lasts four months: a file that says so is not believed."""


def format_of(file: Path | BytesIO) -> str | None:
    """FFmpeg's name of a video file's format; None if it is no video of a known one.

    Raises:
        ImageError: The file cannot be read.
    """
    with decoding(file if isinstance(file, Path) else "the video"):
        head = head_of(file, 400)
    if head[4:8] == b"ftyp" and head[8:12] in PICTURE_BRANDS:
        return None
    for name, places, mark in SIGNATURES:
        if all(head.startswith(mark, place) for place in places):
            return name
    return None


class Container:
    """An open video file. Seconds count from its first frame."""

    def __init__(self, file: Path | BytesIO, name: str, check: Check) -> None:
        """Open a file whose `format_of` is known.

        Raises:
            VideoError: PyAV is not installed, or the file is damaged or holds no pictures.
        """
        try:
            import av  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise VideoError(f"{name} is a video: to read it, pip install 'smol-edge[video]'") from error
        self._name, self._av_error, self._check = name, av.FFmpegError, check
        source: BytesIO | str = f"file:{file}"  # a name like concat:a is no protocol
        if isinstance(file, BytesIO):
            file.seek(0)
            source = file
        with self._decoding():
            # before PyAV 19, titles that are no UTF-8 were errors unless one asked for something else
            lenient: Any = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
            self._container: InputContainer = av.open(source, "r", format=format_of(file), **lenient)
            self._stream = self._pictures()
            self._stream.thread_type = "AUTO"
            self._time_base = float(self._stream.time_base or 1)
            self._start = (self._stream.start_time or 0) * self._time_base
            self.frame_rate, self.count, self.times = self._measure()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def distinct(self, moments: Sequence[float]) -> int:
        """How many frames these seconds show at least.

        Where the rate varies, one may be shown at many of them; and it may vary in a file that does not count frames.
        """
        stream = self._stream
        is_known = self.times or (stream.frames and stream.average_rate == stream.base_rate)
        return len(moments) if is_known else 1

    def frames(self, moments: Sequence[float], check: Check) -> Iterator[tuple[float, Image.Image]]:
        """(second, RGB picture, upright) of what is shown at these ascending seconds.

        A frame that is shown at several of them is given at the first.

        Raises:
            VideoError: The file is damaged, or ends before a frame that was asked for.
        """
        self._check = check
        with self._decoding():
            following = self._decoded()
            coming, shown, given = next(following, None), None, None
            for second in moments:
                goal = on_screen(second, self.frame_rate)
                if coming is not None and self._worth_seeking(self._time(coming), goal):
                    coming, following = self._decoded_from(goal)
                    shown = None
                while coming is not None and (shown is None or self._time(coming) <= goal):
                    shown, coming = coming, next(following, None)
                if shown is None:
                    raise VideoError(f"{self._name} holds no picture: it is damaged or cut off")
                if coming is None:
                    self._refuse_if_cut_off(shown, goal)
                if self._time(shown) != given:
                    given = self._time(shown)
                    yield second, upright(shown)

    def _pictures(self) -> "VideoStream":
        """The first video stream that is no cover picture."""
        av_streams = self._container.streams.video
        streams = [each for each in av_streams if "attached_pic" not in (each.disposition.name or "")]
        if not streams:
            raise VideoError(f"{self._name} holds no pictures, only sound")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{self._name} is coded in a way that this PyAV cannot decode: convert it to H.264 first")
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(f"{self._name} has more than {MAX_PIXELS:,} pixels: make it smaller first")
        return stream

    def _measure(self) -> tuple[float, int, tuple[float, ...]]:
        """Frames per second on average, their number, and the second of each if they are few."""
        frame_rate = float(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE)
        duration = self._duration(frame_rate)
        if duration is None:
            return *self._count(frame_rate), ()
        count = max(1, round(duration * frame_rate))
        if frame_rate < SLOW_RATE and count <= MOST_TIMES:
            times, end = self._times()
            if times and end + MISSING_S + 1 / frame_rate > duration:  # else it is cut off
                duration = max(duration, end)
                return len(times) / duration, len(times), times
        return frame_rate, count, ()

    def _duration(self, frame_rate: float) -> float | None:
        """Seconds from the first frame to the end of the last, as the file says; None if it does not, or lies."""
        stream = self._stream
        duration: float | None = None
        if stream.duration:
            duration = stream.duration * self._time_base
        elif tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
            duration = self._of_pictures(int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]), frame_rate)
        elif stream.frames:
            duration = stream.frames / frame_rate
        elif self._container.duration:
            duration = self._of_pictures(self._container.duration / 1_000_000, frame_rate)
        return duration if duration and 0 < duration < MAX_DURATION_S else None

    def _of_pictures(self, stated: float, frame_rate: float) -> float:
        """What a stated length means for pictures that begin late: some writers count from zero, some from them."""
        if self._start <= 0 or not self._start < stated < MAX_DURATION_S:
            return stated
        self._container.seek(self._ticks(stated - self._start), stream=self._stream)
        last = max((self._seconds(packet.pts) for packet in self._packets()), default=0.0)
        self._container.seek(0)
        return max(stated - self._start, last + 1 / frame_rate)

    def _times(self) -> tuple[tuple[float, ...], float]:
        """When each frame is shown and when the last one ends, read undecoded."""
        times, end = [], 0.0
        for packet in self._packets():
            times.append(self._seconds(packet.pts))
            end = max(end, times[-1] + (packet.duration or 0) * self._time_base)
        self._container.seek(0)
        return tuple(sorted(time for time in times if time >= 0)), end

    def _count(self, frame_rate: float) -> tuple[float, int]:
        """Rate and number for a recording that was never finished and says neither: read it to its end, undecoded."""
        count, end = 0, 0.0
        for packet in self._packets():
            count, end = count + 1, max(end, self._seconds(packet.pts))
        self._container.seek(0)
        return (count - 1) / end if end else frame_rate, max(1, count)

    def _packets(self) -> "Iterator[Packet[VideoStream]]":
        for packet in self._container.demux(self._stream):
            self._check()
            if packet.pts is not None:
                yield packet

    def _seconds(self, ticks: int | None) -> float:
        return (ticks or 0) * self._time_base - self._start

    def _decoded(self) -> "Iterator[VideoFrame]":
        for frame in self._container.decode(self._stream):
            self._check()
            yield frame

    def _decoded_from(self, goal: float) -> "tuple[VideoFrame | None, Iterator[VideoFrame]]":
        """The first frame from a keyframe on that is shown at a second or before, and those after it."""
        for earlier in (0, SEEK_S, math.inf):  # some formats seek by the time that a frame is decoded at
            self._container.seek(self._ticks(max(goal - earlier, 0)), stream=self._stream)
            following = self._decoded()
            first = next(following, None)
            if first is not None and self._time(first) <= goal:
                break
        return first, following

    def _worth_seeking(self, now: float, goal: float) -> bool:
        """Whether there is a keyframe on the way; without an index of them, whether it is far."""
        entries, ticks = self._stream.index_entries, self._ticks(goal)
        if len(entries) and entries[-1].timestamp >= ticks:
            keyframe = entries.search_timestamp(ticks)
            return keyframe >= 0 and entries[keyframe].timestamp > self._ticks(now)
        return goal - now > SEEK_S

    def _ticks(self, second: float) -> int:
        return round((second + self._start) / self._time_base)

    def _time(self, frame: "VideoFrame") -> float:
        if frame.time is None:
            raise VideoError(f"{self._name} does not say when its frames are shown: convert it to MP4 first")
        return frame.time - self._start

    def _refuse_if_cut_off(self, last: "VideoFrame", goal: float) -> None:
        end = self._time(last) + max((last.duration or 0) * self._time_base, 1 / self.frame_rate)
        if goal > end + MISSING_S:
            raise VideoError(
                f"{self._name} should last {self.count / self.frame_rate:.1f} s but its pictures end at {end:.1f} s: "
                f"it is cut off; end at {end:.1f} (--end {end:.1f}) to take what is there"
            )

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except SmolEdgeError:
            raise
        except MemoryError as error:
            raise VideoError(f"{self._name} needs more memory than there is: make it smaller first") from error
        except self._av_error as error:
            raise VideoError(f"{self._name} is damaged or cut off: {error.strerror or shown(error)}") from error
        except Exception as error:  # PyAV raises UnicodeDecodeError, ValueError, OverflowError, ...
            raise VideoError(f"{self._name} is damaged: {shown(error)}") from error
