"""Decoding in a process of its own, for a decoder that keeps Python's lock for as long as a file likes.

Pillow's decoder of JPEG 2000 does: beside a file of 23 MB no other thread ran for ten seconds.
"""

import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from subprocess import DEVNULL, PIPE
from threading import Timer

from PIL import Image

from smolvlm_edge.errors import ImageError
from smolvlm_edge.pictures.pixels import shrink_on_load, upright_rgb

FORMAT = "JPEG2000"
FEW_PIXELS, FEW_BYTES = 1 << 20, 1 << 17
"""Of a file that is decoded at once: it takes a tenth of a second, and a process takes that to start."""
LONGEST_S = 60


def is_slow(image: Image.Image, file: BytesIO | Path) -> bool:
    """Whether an open picture is to be decoded apart, and can: an application's own program cannot be started."""
    if image.format != FORMAT or not Path(sys.executable or "").stem.startswith("python"):
        return False
    size = file.stat().st_size if isinstance(file, Path) else len(file.getbuffer())
    return size > FEW_BYTES or image.width * image.height > FEW_PIXELS


def upright_rgb_apart(file: BytesIO | Path) -> Image.Image:
    """What `upright_rgb` makes of a file.

    Raises:
        ImageError: The file is damaged, or takes too long.
    """
    command = [sys.executable, "-P", "-m", __name__]  # -P: nothing is imported from the folder it is started in
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        file.open("rb") if isinstance(file, Path) else BytesIO(file.getbuffer()) as source,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment) as process,  # noqa: S603
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        end = Timer(LONGEST_S, process.kill)
        end.start()
        try:
            with suppress(BrokenPipeError), process.stdin as sink:
                copyfileobj(source, sink)
            width, height = map(int, process.stdout.readline().split() or (0, 0))
            pixels = process.stdout.read(3 * width * height)
        finally:
            end.cancel()
            process.kill()
    if not pixels or len(pixels) < 3 * width * height:
        raise ImageError(
            f"cannot be decoded: it is damaged, or needs more memory than there is or more than {LONGEST_S} seconds"
        )
    return Image.frombytes("RGB", (width, height), pixels)


def main() -> None:
    """Read a file from stdin, write its size and its pixels to stdout."""
    with Image.open(BytesIO(sys.stdin.buffer.read()), formats=[FORMAT]) as image:
        shrink_on_load(image)
        picture = upright_rgb(image, own=True)
    sys.stdout.buffer.write(b"%d %d\n" % picture.size + picture.tobytes())


if __name__ == "__main__":
    main()
