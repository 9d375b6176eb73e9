"""When the frames of a video were, and how the model is told: the wording of SmolVLM's processor.

transformers 5.23, processing_smolvlm.py, replace_video_token.
"""

from dataclasses import dataclass
from datetime import timedelta

INTRO = "You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"
FRAME = "\nFrame from {stamp}:"
OUTRO = "\n\n"
MAX_FRAMES = 999
"""Numbers up to here are put into words; no model of the family has room for so many frames."""

ONES = (  # noqa: SIM905 - three lines instead of twenty
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The length of a video and the moments of the frames that were taken of it, in seconds."""

    duration: float
    times: tuple[float, ...]

    @property
    def stamps(self) -> tuple[str, ...]:
        """The moments as the prompt has them, MM:SS, cut to whole seconds."""
        return tuple(f"{int(time // 60):02d}:{int(time % 60):02d}" for time in self.times)

    def texts(self) -> list[str]:
        """What the prompt says before each frame, and last what it says after the last one."""
        intro = INTRO.format(count=in_words(len(self.times)), duration=timedelta(seconds=int(self.duration)))
        stamps = [FRAME.format(stamp=stamp) for stamp in self.stamps]
        return [intro + stamps[0], *stamps[1:], OUTRO]


def in_words(number: int) -> str:
    """A number from 0 to 999 in English, as num2words 0.5 writes it."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    hundreds, rest = divmod(number, 100)
    return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
