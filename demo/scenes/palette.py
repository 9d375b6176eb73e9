"""Named colours, far enough apart to be told apart, each with a little play."""

from random import Random

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 32, 38),
    "orange": (245, 136, 22),
    "yellow": (248, 218, 40),
    "green": (40, 158, 64),
    "blue": (38, 84, 208),
    "purple": (128, 50, 168),
    "pink": (244, 132, 184),
    "brown": (122, 74, 36),
    "black": (20, 20, 22),
    "white": (250, 250, 250),
}
BACKGROUNDS: tuple[Colour, ...] = (
    (255, 255, 255),
    (246, 244, 238),
    (236, 240, 246),
    (232, 244, 234),
    (250, 236, 228),
    (206, 208, 212),
    (150, 154, 160),
    (84, 88, 96),
    (44, 48, 60),
    (16, 18, 24),
    (26, 52, 78),
    (180, 214, 232),
)
PLAY = 10  # levels that a shade may be off its colour
CONTRAST = 200  # least sum of the channels' differences between what is drawn and what lies under it


def shade(random: Random, name: str) -> Colour:
    """One of a colour's shades."""
    red, green, blue = (min(255, max(0, level + random.randint(-PLAY, PLAY))) for level in COLOURS[name])
    return red, green, blue


def background(random: Random) -> Colour:
    """Something to draw on; white half of the time, as people's pictures are."""
    return BACKGROUNDS[0] if random.random() < 0.5 else random.choice(BACKGROUNDS)


def visible_on(under: Colour) -> list[str]:
    """The colours that stand out from what lies under them."""
    return [name for name, rgb in COLOURS.items() if _difference(rgb, under) >= CONTRAST]


def _difference(one: Colour, other: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
