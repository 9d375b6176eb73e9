"""Drawn scenes with questions and answers: what the demonstration model learns from and is judged by.

A scene is data (scene.py) made by a seeded `random.Random`; drawing.py turns it into a picture. Which side of
the division a scene lies on, training or held out, follows from what is drawn, so the sides share no scene; nor
do they share a word to read (texts.py).
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random

from smolvlm_edge.demo.scenes import changes, charts, clutter, shapes, texts
from smolvlm_edge.demo.scenes.drawing import draw
from smolvlm_edge.demo.scenes.scene import Question, Scene, Sketch

__all__ = ["MAKERS", "Maker", "Question", "Scene", "Sketch", "draw", "scenes"]

Maker = Callable[..., Scene]
"""maker(random, held_out=...) makes up a scene."""
MAKERS: Mapping[str, Maker] = {
    "describing": shapes.describing,
    "counting": shapes.counting,
    "reading": texts.reading,
    "bars": charts.bars,
    "curve": charts.curve,
    "clock": charts.clock,
    "pair": changes.pair,
    "clip": changes.clip,
    "clutter": clutter.clutter,
    "talk": clutter.talk,
}


def scenes(
    seed: int, *, held_out: bool, weights: Mapping[str, float], makers: Mapping[str, Maker] = MAKERS
) -> Iterator[Scene]:
    """Scenes without end, by the makers named in `weights`."""
    random = Random(f"{seed}/{held_out}")
    names, shares = list(weights), list(weights.values())
    while True:
        scene = makers[random.choices(names, shares)[0]](random, held_out=held_out)
        if scene.held_out == held_out:
            yield scene
