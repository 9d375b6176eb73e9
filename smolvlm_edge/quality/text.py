"""What the models read: a text as windows of token ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.demo.scenes import MAKERS, scenes
from smolvlm_edge.errors import RequestError

WINDOW = 512
PROSE = "prose.txt"
"""English prose, written for this purpose. Calibration must never see it."""
BYTES_PER_TOKEN = 2.5
"""A tokenizer that gets fewer out of the prose spells it, so that it was made for other texts."""
SCENES = 60

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as the models read it."""

    name: str
    windows: tuple[Ids, ...]
    """Token ids [tokens] of the stretches, at most WINDOW long, that are each read with an empty cache."""

    @property
    def tokens(self) -> int:
        """Token positions of all windows."""
        return sum(map(len, self.windows))

    @classmethod
    def from_file(cls, path: Path, bundle: Bundle) -> Self:
        """A text of the user's.

        Raises:
            RequestError: The file cannot be read, is no UTF-8 text, has less than two tokens, or has one that the
                model does not know.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RequestError.of_file(path, error) from error
        except ValueError as error:
            raise RequestError(f"{path} is no UTF-8 text: name another file with --text") from error
        return cls(path.name, _windows(text, PromptEncoder(bundle.folder, bundle.model), bundle))

    @classmethod
    def default(cls, bundle: Bundle) -> Self:
        """The prose that comes with the package, or talk about drawn scenes if the tokenizer was not made for prose."""
        encoder = PromptEncoder(bundle.folder, bundle.model)
        prose = (files("smolvlm_edge.quality") / PROSE).read_text(encoding="utf-8")
        if len(prose.encode()) >= BYTES_PER_TOKEN * len(encoder.tokenizer.encode(prose).ids):
            return cls("the package's English prose", _windows(prose, encoder, bundle))
        return cls("talk about drawn scenes", _windows("\n".join(_talk(encoder)), encoder, bundle))


def _windows(text: str, encoder: PromptEncoder, bundle: Bundle) -> tuple[Ids, ...]:
    """Where the tokenizer begins every text with a start token, every window begins with it."""
    start = encoder.tokenizer.encode("").ids
    ids = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    shape = bundle.model.text
    if max(ids, default=0) >= shape.vocab_size:
        raise RequestError(
            f"the model has no token {encoder.tokenizer.id_to_token(max(ids))}: leave it out of the text"
        )
    size = min(WINDOW, shape.max_position_embeddings) - len(start)
    windows = [np.array(start + ids[i : i + size], np.int64) for i in range(0, len(ids), size)]
    if not windows or len(windows[0]) < 2:
        raise RequestError("the text has less than two tokens: name a longer one with --text")
    return tuple(windows)


def _talk(encoder: PromptEncoder) -> Iterator[str]:
    """Questions about held-out drawn scenes with their answers, in the form of the model's chat template."""
    for scene in islice(scenes(1, held_out=True, weights=dict.fromkeys(MAKERS, 1.0)), SCENES):
        for question in scene.questions:
            yield f"{encoder.render([{'role': 'user', 'content': question.text}])} {question.answer}"
