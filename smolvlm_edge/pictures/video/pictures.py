"""Videos that are pictures: animated GIF, PNG, WebP and AVIF files, folders of numbered frames, lists of frames."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from itertools import accumulate
from pathlib import Path

from PIL import Image

from smolvlm_edge.errors import ImageError, VideoError
from smolvlm_edge.pictures.deadline import Check
from smolvlm_edge.pictures.images import open_image
from smolvlm_edge.pictures.pixels import MAX_PIXELS, shrink_on_load, upright_rgb
from smolvlm_edge.pictures.sources import ImageSource, decoding, head_of, opened, shown
from smolvlm_edge.pictures.video.durations import MAX_FRAMES, durations_ms
from smolvlm_edge.pictures.video.frames import on_screen

MAX_PIXELS_TOGETHER = 2_000_000_000
"""Of an animation's frames up to the last that is wanted, all of which have to be decoded: 20 seconds of work."""
MAX_FRAME_PIXELS = MAX_PIXELS // 4
"""Of one of them, which is held in several forms at a time."""
DEFAULT_DURATION_MS = 100
"""How long browsers show a frame whose file says 0."""
NUMBERED = re.compile(r"(?:.*\D)?(\d+)\.(?:avif|bmp|gif|jp2|jpe?g|png|ppm|tga|tiff?|webp)", re.IGNORECASE)


def is_animation(file: Path | BytesIO) -> bool:
    """Whether a file is an animated picture; what is no picture at all is none."""
    try:
        with decoding("the file"):
            durations = durations_ms(file, most=2)
            if durations is not None:
                return len(durations) > 1
            if head_of(file, 12)[4:] != b"ftypavis":
                return False
            with opened(file) as image:
                return getattr(image, "is_animated", False)
    except ImageError:
        return False


def numbered_frames(folder: Path) -> list[Path]:
    """The pictures in a folder whose names end with a number, in the order of the numbers.

    Raises:
        VideoError: There are none, or two with the same number.
    """
    frames: dict[int, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise VideoError(f"{shown(folder)} cannot be read: {error.strerror}") from error
    for path in paths:
        if name := NUMBERED.fullmatch(path.name):
            other = frames.setdefault(int(name[1]), path)
            if other is not path:
                raise VideoError(f"{shown(folder)}: {shown(other.name)} and {shown(path.name)} have the same number")
    if not frames:
        raise VideoError(f"{shown(folder)} is a folder without numbered frames such as frame-001.png")
    return [frames[number] for number in sorted(frames)]


class Animation:
    """An animated picture."""

    times: tuple[float, ...] = ()

    def __init__(self, file: Path | BytesIO, name: str, check: Check) -> None:
        """Open a file and read how long each frame is shown.

        Raises:
            ImageError: The file is damaged or too large.
        """
        self._name, self._at = name, -1
        with decoding(name), ExitStack() as opening:
            self._image = opening.enter_context(opened(file))
            shrink_on_load(self._image)
            frames = getattr(self._image, "n_frames", 1) if self._image.format == "AVIF" else None
            if frames is None:
                durations: list[float] = list(durations_ms(file) or [0])
            else:
                self._check_size(frames)
                durations = [self._duration_ms(at, check) for at in range(frames)]
            if len(durations) >= MAX_FRAMES:
                raise ImageError(f"has more than {MAX_FRAMES:,} frames: convert it to a video first")
            if isinstance(file, BytesIO):
                file.seek(0)
            self._open = opening.pop_all()
        *self._starts, total = accumulate((each or DEFAULT_DURATION_MS for each in durations), initial=0.0)
        self.count, self.frame_rate = len(durations), 1000 * len(durations) / total

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    def distinct(self, moments: Sequence[float]) -> int:
        """How many frames these seconds show."""
        return len({*self._places(moments)})

    def frames(self, moments: Sequence[float], check: Check) -> Iterator[tuple[float, Image.Image]]:
        """(second, RGB picture) of what is shown at these ascending seconds, every frame once.

        Raises:
            ImageError: A frame is damaged, or there is too much to decode before the last one.
        """
        given, places = None, self._places(moments)
        with decoding(self._name):
            self._check_size(places[-1] + 1)
        for second, at in zip(moments, places, strict=True):
            if at != given:
                given = at
                with decoding(self._name):
                    self._go_to(at, check)
                    picture = upright_rgb(self._image)
                yield second, picture

    def _places(self, moments: Sequence[float]) -> list[int]:
        return [bisect_right(self._starts, 1000 * on_screen(second, self.frame_rate)) - 1 for second in moments]

    def _go_to(self, at: int, check: Check) -> None:
        """Decode up to a frame: each shows what it changes of the one before."""
        for each in range(self._at + 1, at + 1):
            check()
            self._image.seek(each)
            self._check_size(each + 1)  # a GIF's later frames may be larger than its head says
            self._image.load()
            self._at = each

    def _duration_ms(self, at: int, check: Check) -> float:
        check()
        self._image.seek(at)
        self._image.load()  # AVIF knows only then
        return self._image.info.get("duration") or 0

    def _check_size(self, frames: int) -> None:
        width, height = self._image.size
        if width * height > MAX_FRAME_PIXELS:
            raise ImageError(f"has frames of more than {MAX_FRAME_PIXELS:,} pixels: make them smaller first")
        if frames * width * height > MAX_PIXELS_TOGETHER:
            raise ImageError(
                f"has {frames:,} frames of {width} x {height}, more than {MAX_PIXELS_TOGETHER:,} pixels together: "
                "take its beginning (--end), or convert it to a video first"
            )


class Pictures:
    """Frames that are pictures of their own."""

    times: tuple[float, ...] = ()

    def __init__(self, sources: Sequence[ImageSource], frame_rate: float) -> None:
        self._sources = sources
        self.count, self.frame_rate = len(sources), frame_rate

    def distinct(self, moments: Sequence[float]) -> int:
        """How many frames these seconds show."""
        return len(moments)

    def close(self) -> None:
        """Nothing is open between two frames."""

    def frames(self, moments: Sequence[float], check: Check) -> Iterator[tuple[float, Image.Image]]:
        """(second, RGB picture) of these frames.

        Raises:
            ImageError: A picture cannot be read.
        """
        for second in moments:
            check()
            yield second, open_image(self._sources[round(second * self.frame_rate)])
