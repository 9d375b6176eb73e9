"""Pictures and questions of the parity cases: drawn here, so that reference and tests see the same pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


def draw(width: int, height: int, seed: int) -> Image.Image:
    """An RGB picture: gradients, a disc, a bar and noise.

    Whole numbers only and no random generator: every platform and every numpy draws the same pixels.
    """
    y, x = np.mgrid[:height, :width].astype(np.int64)
    pixels: npt.NDArray[np.int64] = np.stack([255 * x // width, 255 * y // height, 255 * (x + y) // (width + height)])
    pixels = np.roll(pixels, seed, axis=0)
    radius = min(width, height) // 3
    disc = (x - width * (2 + seed % 3) // 6) ** 2 + (y - height // 2) ** 2 < radius**2
    bar = (x + 2 * y + 17 * seed) % (width // 2) < width // 12
    pixels[:, disc] = np.array([[230], [40 * (seed % 5)], [90]])
    pixels[:, bar] = 255 - pixels[:, bar]
    # the low bits of a multiplicative hash of the place; 2**32 keeps the products within int64
    hashed = (x * 73_856_093 + y * 19_349_663 + seed * 83_492_791) % 2**32
    noise = (hashed * 2_654_435_761 % 2**32 >> 16) % 41 - 20
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True)
class Case:
    """One question: the sizes (width, height) of its pictures, and its text."""

    prompt: str
    sizes: tuple[tuple[int, int], ...] = ()
    split: bool = True

    def pictures(self) -> list[Image.Image]:
        """The pictures, each a different one."""
        return [draw(width, height, seed) for seed, (width, height) in enumerate(self.sizes, start=1)]


STORY = (
    "The keeper of the lighthouse wrote 1 line each day, and on day 27 he wrote: the fog is back, the sea is "
    "quiet, the lamp burns.\n\nThen a boat came out of the fog – small, grey, with nobody in it. "
)

CASES = {
    "text": Case("What is the capital of France?"),
    "long_text": Case(STORY * 2 + "Who sent the boat?"),
    "one_picture": Case("Describe this image.", ((300, 200),)),
    "two_pictures": Case("What changed between these 2 pictures?", ((120, 170), (400, 90))),
    "unsplit": Case("What is this?", ((97, 143),), split=False),
}
