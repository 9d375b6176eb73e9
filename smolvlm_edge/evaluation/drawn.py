"""Questions about drawn scenes that no training has seen."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from random import Random

from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.demo.scenes import MAKERS, Scene, Sketch, draw, scenes
from smolvlm_edge.evaluation.questions import Item, Questions
from smolvlm_edge.pictures.images import Detail

DEFAULT_COUNT = 1500
DEFAULT_SEED = 0


def drawn_questions(seed: int | None = None, limit: int | None = None, detail: Detail = "high") -> Questions:
    """Questions about drawn scenes, of all kinds alike; more of them begin with the same ones."""
    seed = DEFAULT_SEED if seed is None else seed
    return Questions(drawn_items(seed, detail), limit or DEFAULT_COUNT, fingerprint(seed))


def drawn_items(seed: int, detail: Detail = "high") -> Iterator[Item]:
    """Questions without end, one about each scene, all kinds as often as each other from the first on.

    A scene is asked the kind of question that was asked least so far, and is passed over if some other kind is still
    behind that one. A kind that no scene has shown yet has to catch up first.
    """
    asked: Counter[str] = Counter()
    random = Random(seed)  # noqa: S311 - is to be repeatable, not secret
    for scene in _held_out(seed):
        asked.update({question.kind: 0 for question in scene.questions})
        # shuffled, because min() takes the first of equals and would never ask what stands last
        questions = random.sample(scene.questions, len(scene.questions))
        question = min(questions, key=lambda question: asked[question.kind])
        if asked[question.kind] > min(asked.values()):
            continue
        asked[question.kind] += 1
        yield Item(
            index=str(asked.total()),
            name=f"question {asked.total()}",
            kind=question.kind,
            images=partial(_pictures, scene.sketches),
            prompt=question.text,
            answers=(question.answer,),
            metric="literal",
            detail=detail if scene.split else "low",
        )


def fingerprint(seed: int) -> str:
    """Names the questions of a seed: another one if the scenes or what is asked about them change."""
    first = list(islice(_held_out(seed), 100))
    return f"drawn scenes, seed {seed}, {hashlib.sha256(repr(first).encode()).hexdigest()}"


def _held_out(seed: int) -> Iterator[Scene]:
    return scenes(seed, held_out=True, weights=dict.fromkeys(MAKERS, 1.0))


def _pictures(sketches: Sequence[Sketch]) -> list[Source]:
    return [draw(sketch) for sketch in sketches]
