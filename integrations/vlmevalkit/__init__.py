"""The bundles on this machine as models of VLMEvalKit.

One line after the last of `vlmeval/config.py` makes `run.py --data MMStar --model SmolEdge-demo` find them:

    from smolvlm_edge.integrations.vlmevalkit import models; supported_VLM.update(models())

Tried with ms-vlmeval 0.0.20, whose `vlmeval/vlm/base.py` says what a model is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from vlmeval.vlm.base import BaseModel

from smolvlm_edge import SmolVLM, local_models
from smolvlm_edge.evaluation.family import VIDEOS, frames, word

LONGEST = 2048
"""Tokens of a reply: what the kit's own classes of this family let it have."""


class SmolEdge(BaseModel):  # type: ignore[misc]
    """A bundle, asked in the words that its publishers use for each data set."""

    INSTALL_REQ = False
    INTERLEAVE = True

    def __init__(self, model: str | Path | None = None, max_tokens: int = LONGEST, **options: Any) -> None:
        """Load the model.

        Args:
            model: As `SmolVLM.load` takes it.
            max_tokens: Longest reply.
            **options: Further keywords of `SmolVLM.load`, such as `engine` and `threads`.

        Raises:
            SmolEdgeError: It cannot be loaded.
        """
        super().__init__()
        self._model = SmolVLM.load(model, **options)
        self._max_tokens = max_tokens

    def generate_inner(self, message: Sequence[dict[str, str]], dataset: str | None = None) -> str:
        """The reply to texts and files of pictures, in their order.

        Raises:
            SmolEdgeError: It cannot be answered; `run.py` says so and leaves out the data set.
        """
        name, numbers = dataset or "", count()
        pictures = [part["value"] for part in message if part["type"] == "image"]
        parts = tuple(next(numbers) if part["type"] == "image" else part["value"] for part in message)
        if name in VIDEOS:
            wording = frames(name, parts)
        else:
            wording = word(name, parts, second=self._model.bundle.model.model_type == "smolvlm")
        answer = self._model.generate(
            messages=wording.messages(pictures),
            max_tokens=self._max_tokens,
            detail="low" if name in VIDEOS else "high",
        )
        return answer.text.strip()


def models(**options: Any) -> dict[str, Callable[..., SmolEdge]]:
    """Name -> what loads it: `SmolEdge-demo`, and `SmolEdge-smolvlm-256m` or the like for every bundle with a name.

    Args:
        **options: As `SmolEdge` takes them.
    """
    return {
        f"SmolEdge-{local.name.replace('/', '--')}": partial(SmolEdge, local.folder, **options)
        for local in local_models()
    }
