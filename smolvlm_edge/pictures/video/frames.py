"""Which frames of a video the model is shown: the rule of SmolVLM's video processor.

transformers 5.23, video_processing_smolvlm.py, sample_frames.
"""

import math
from collections.abc import Sequence

import numpy as np

SKIPPED_S = 1
"""Seconds left out at both ends of a long video (`skip_secs`)."""
ROUNDING_S = 0.005
"""More than any format rounds timestamps by (Matroska: to thousandths), less than the shortest frame of a GIF."""


def sample_frames(
    count: int,
    frame_rate: float,
    *,
    fps: float,
    max_frames: int,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> list[int]:
    """Ascending numbers of the frames to take, evenly spaced from first to last.

    So many a second, at least one and at most `max_frames`. Of a video that is much longer than that, the first and
    the last second are left out; a part that was named by `start` or `end` is taken whole.

    Args:
        count: Frames that the video has.
        frame_rate: Frames a second of the video.
        fps: Frames to take per second.
        max_frames: The most to take.
        frames: How many to take instead, as far as there are so many.
        start: Second to begin at.
        end: Second to end before.
    """
    first = 0 if start is None else min(math.ceil(start * frame_rate), count - 1)
    last = count - 1 if end is None else min(max(math.ceil(end * frame_rate) - 1, first), count - 1)
    duration = (last - first + 1) / frame_rate
    most = frames or max_frames
    wanted = frames or max(1, min(round(fps * duration), max_frames))
    if start is None and end is None and duration - 2 * SKIPPED_S > most * fps:
        inner = int(SKIPPED_S * frame_rate), min(int(count - SKIPPED_S * frame_rate), last)
        first, last = inner if inner[0] < inner[1] else (first, last)
    return np.unique(np.linspace(first, last, wanted, dtype=int)).tolist()


def sample_moments(
    count: int,
    frame_rate: float,
    times: Sequence[float],
    *,
    fps: float,
    max_frames: int,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> list[float]:
    """Ascending seconds at which the frames to take are on screen; arguments as for `sample_frames`, and `times`.

    `times` says when each frame is shown, where they are few; else it is empty. If there are no more of them than are
    wanted, each is taken when it is shown: evenly spaced moments would miss some where the frame rate varies.
    """
    shown = [time for time in times if (start or 0) <= time < (math.inf if end is None else end)]
    duration = min(math.inf if end is None else end, count / frame_rate) - (start or 0)
    if shown and len(shown) <= (frames or min(round(fps * duration), max_frames)):
        return shown
    numbers = sample_frames(count, frame_rate, fps=fps, max_frames=max_frames, frames=frames, start=start, end=end)
    return [number / frame_rate for number in numbers]


def on_screen(second: float, frame_rate: float) -> float:
    """When a frame is on screen for certain: at its second, and a little, because timestamps are rounded."""
    return second + min(0.5 / frame_rate, ROUNDING_S)
