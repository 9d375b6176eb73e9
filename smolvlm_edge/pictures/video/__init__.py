"""A video -> the frames that the model is shown, and when they were.

What the frames are is said by the checkpoint's rules (`config.VideoConfig`, `frames.sample_frames`); every frame is
squashed to one tile, never cut. Files are read by `container`, animations and folders of frames by `pictures`.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import Event
from typing import BinaryIO, Protocol, TypeGuard

from PIL import Image

from smolvlm_edge.bundle.config import VideoConfig
from smolvlm_edge.errors import RequestError, StoppedError, VideoError
from smolvlm_edge.pictures.deadline import Check, until_stopped
from smolvlm_edge.pictures.images import Tiles, cut
from smolvlm_edge.pictures.sources import ImageSource, held, readable, shown
from smolvlm_edge.pictures.video.container import Container, format_of
from smolvlm_edge.pictures.video.frames import sample_moments
from smolvlm_edge.pictures.video.pictures import Animation, Pictures, is_animation, numbered_frames
from smolvlm_edge.pictures.video.timeline import MAX_FRAMES, Timeline

__all__ = ["Clip", "Picture", "Timeline", "Video", "as_video", "least_frames", "read_clip"]

MAX_RATE = 1000


@dataclass(frozen=True, slots=True)
class Video:
    """A video, and what to take of it.

    By default that is what the checkpoint's rules say: for SmolVLM2 a frame a second and at most 64, evenly spaced.
    """

    source: str | PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Sequence[ImageSource]
    """A video file, an animated GIF, PNG, WebP or AVIF file, or the bytes of one; a folder of numbered frames
    (`frame-1.png`, ...); or a list of pictures."""
    frames: int | None = None
    """How many frames to take, as far as there are so many."""
    start: float | None = None
    """Second to begin at."""
    end: float | None = None
    """Second to end before."""
    fps: float | None = None
    """Frames per second of a folder or list of frames, which does not say; by default as many as the model takes."""

    def __post_init__(self) -> None:
        """Raise RequestError for a value that makes no sense."""
        if self.frames is not None and not 1 <= self.frames <= MAX_FRAMES:
            raise RequestError(f"frames must be from 1 to {MAX_FRAMES}")
        if self.fps is not None and not 0 < self.fps <= MAX_RATE:
            raise RequestError(f"fps must be above 0 and at most {MAX_RATE}")
        start = self.start or 0
        if not 0 <= start < (math.inf if self.end is None else self.end):
            raise RequestError(f"a part of a video must end after it starts, not at {self.end} s after {start} s")


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames that were taken of a video."""

    frames: tuple[Tiles, ...]
    """Each a single tile."""
    timeline: Timeline


Picture = Tiles | Clip
"""What was read of a picture or a video."""


class _Footage(Protocol):
    """An open video, of whatever kind."""

    count: int
    frame_rate: float
    times: tuple[float, ...]
    """When each frame is shown, if that is known and they are few; else empty."""

    def frames(self, moments: Sequence[float], check: Check) -> Iterator[tuple[float, Image.Image]]:
        """(second, RGB picture) of what is shown at these ascending seconds; the picture is valid until the next."""

    def distinct(self, moments: Sequence[float]) -> int:
        """How many frames these seconds show at least, as far as that is known before they are decoded."""

    def close(self) -> None: ...


def as_video(source: ImageSource | Video) -> Video | None:
    """The video that a source is, by its content; None if it is a picture.

    Raises:
        ImageError: There is no such file, or it is empty.
    """
    if isinstance(source, Video):
        return source
    source = held(source)
    if not isinstance(source, str | PathLike | bytes):
        return None
    if _is_folder(source):
        return Video(source)
    file = readable(source)
    return Video(source) if format_of(file) or is_animation(file) else None


def least_frames(video: Video, config: VideoConfig, check: Check | None = None) -> int:
    """How many frames `read_clip` takes at least, as far as that is known before one is decoded; raises as it does."""
    go_on = check or (lambda: None)

    def count() -> int:
        with closing(_open(video, config.fps, go_on)) as footage:
            return footage.distinct(_moments(footage, video, config))

    return until_stopped(count, check)


def read_clip(video: Video, config: VideoConfig, check: Check | None = None) -> Clip:
    """Take the frames of a video that the checkpoint's rules and the caller ask for.

    Args:
        video: The video.
        config: The checkpoint's rules.
        check: Called between frames and while they are decoded; what it raises ends the reading.

    Raises:
        RequestError: The video ends before the second to begin at.
        ImageError: It is missing, damaged, too large or no video.
    """
    ended = Event()

    def go_on() -> None:  # in the thread that reads, which nobody may be waiting for any more
        if ended.is_set():
            raise StoppedError("the video is no longer wanted")

    try:
        return until_stopped(lambda: _read(video, config, go_on), check)
    finally:
        ended.set()


def _read(video: Video, config: VideoConfig, check: Check) -> Clip:
    with closing(_open(video, config.fps, check)) as footage:
        times, tiles = [], []
        for second, picture in footage.frames(_moments(footage, video, config), check):
            times.append(second)
            tiles.append(cut(picture, config.frame, detail="low"))
        return Clip(tuple(tiles), Timeline(footage.count / footage.frame_rate, tuple(times)))


def _moments(footage: _Footage, video: Video, config: VideoConfig) -> list[float]:
    duration = footage.count / footage.frame_rate
    if video.start is not None and video.start >= duration:
        raise RequestError(f"the video lasts {duration:.1f} s and cannot start at {video.start} s")
    return sample_moments(
        footage.count,
        footage.frame_rate,
        footage.times,
        fps=config.fps,
        max_frames=config.max_frames,
        frames=video.frames,
        start=video.start,
        end=video.end,
    )


def _open(video: Video, fps: float, check: Check) -> _Footage:
    source = held(video.source)
    if not isinstance(source, str | PathLike | bytes):
        if not len(source):
            raise RequestError("a video needs one frame or more")
        return Pictures(source, video.fps or fps)
    if _is_folder(source):
        return Pictures(numbered_frames(Path(os.fspath(source))), video.fps or fps)
    name = "the video" if isinstance(source, bytes) else shown(source)
    if video.fps is not None:
        raise RequestError(f"{name} has a frame rate of its own: fps is for folders and lists of frames")
    file = readable(source)
    if is_animation(file):
        return Animation(file, name, check)
    if format_of(file) is None:
        raise VideoError(f"{name} is no video of a known format (MP4, MOV, MKV, WebM, AVI, MPEG, FLV, WMV, Ogg, GIF)")
    return Container(file, name, check)


def _is_folder(source: str | PathLike[str] | bytes) -> TypeGuard[str | PathLike[str]]:
    return not isinstance(source, bytes) and os.path.isdir(source)  # noqa: PTH112 - says no to a name that is too long
