"""Videos that are pictures: animated GIF, PNG, WebP and AVIF files, folders of numbered frames, lists of frames."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import accumulate
from pathlib import Path

from PIL import Image

from smolvlm_edge.errors import ImageError, VideoError
from smolvlm_edge.pictures.images import ImageSource, decoding, known_formats, open_image, upright_rgb
from smolvlm_edge.pictures.video.frames import moment

ANIMATED_FORMATS = ("AVIF", "GIF", "PNG", "WEBP")
DEFAULT_DURATION_MS = 100
"""How long browsers show a frame whose file says 0."""
NUMBERED = re.compile(r"(?:.*\D)?(\d+)\.(?:avif|bmp|gif|jp2|jpe?g|png|ppm|tga|tiff?|webp)", re.IGNORECASE)


def is_animation(file: Path | BytesIO) -> bool:
    """Whether a file is an animated picture; what is no picture at all is none."""
    try:
        with decoding("the file"), Image.open(file, formats=known_formats()) as image:
            return image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
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
        raise VideoError(f"{folder} cannot be read: {error.strerror}") from error
    for path in paths:
        if name := NUMBERED.fullmatch(path.name):
            other = frames.setdefault(int(name[1]), path)
            if other is not path:
                raise VideoError(f"{folder}: {other.name} and {path.name} have the same number")
    if not frames:
        raise VideoError(f"{folder} is a folder without numbered frames such as frame-001.png")
    return [frames[number] for number in sorted(frames)]


class Animation:
    """An animated picture."""

    def __init__(self, file: Path | BytesIO, name: str) -> None:
        """Open a file and read how long each frame is shown.

        Raises:
            ImageError: The file is damaged or too large.
        """
        self._name = name
        with decoding(name):
            self._image = Image.open(file, formats=known_formats())
            durations = [self._duration_ms(at) for at in range(getattr(self._image, "n_frames", 1))]
        *self._starts, total = accumulate(durations, initial=0.0)
        self.count, self.frame_rate = len(durations), 1000 * len(durations) / total

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """(number, RGB picture) of what is shown at number / frame_rate seconds, every frame once.

        Raises:
            ImageError: A frame is damaged.
        """
        given = None
        for number in numbers:
            at = bisect_right(self._starts, 1000 * moment(number, self.frame_rate)) - 1
            if at != given:
                given = at
                with decoding(self._name):
                    self._image.seek(at)
                    picture = upright_rgb(self._image)
                yield number, picture

    def _duration_ms(self, at: int) -> float:
        self._image.seek(at)
        self._image.load()  # WebP knows only then
        return self._image.info.get("duration") or DEFAULT_DURATION_MS


class Pictures:
    """Frames that are pictures of their own."""

    def __init__(self, sources: Sequence[ImageSource], frame_rate: float) -> None:
        self._sources = sources
        self.count, self.frame_rate = len(sources), frame_rate

    def close(self) -> None:
        """Nothing is open between two frames."""

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """(number, RGB picture) of these frames.

        Raises:
            ImageError: A picture cannot be read.
        """
        for number in numbers:
            yield number, open_image(self._sources[number])
