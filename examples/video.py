"""A video: here a list of frames; `Video("clip.mp4", start=90, frames=8)` is part of a file.

It prints

    The red circle moves to the right.
    frames at 00:00, 00:01, 00:02, 00:03
"""

from pathlib import Path

from smolvlm_edge import SmolVLM, Video

frames = [Path(__file__).with_name(f"clip-{number}.png") for number in range(1, 5)]
with SmolVLM.load() as model:
    answer = model.generate(Video(frames, fps=1), "What happens?")
    print(answer)
    print("frames at", ", ".join(answer.videos[0].stamps))
