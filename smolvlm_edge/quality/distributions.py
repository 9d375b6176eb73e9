"""Next-token distributions of two models on one text: KL divergence, top token, perplexity."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.graphs import Engine, Floats
from smolvlm_edge.quality.text import Ids, Text

POSITIONS_AT_ONCE = 64
"""Their logits over 49,280 tokens take 25 MB in float64, and a handful of such arrays is alive at a time."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextFidelity:
    """How far a model's next-token distributions are from the reference's."""

    tokens: int
    kl: float
    """KL(reference || model) in nats, the mean over all token positions."""
    top1: float
    """Share of the positions where both hold the same token for the likeliest."""
    perplexity: float
    """Of every token that follows another one in its window."""
    reference_perplexity: float

    @property
    def perplexity_ratio(self) -> float:
        """The model's perplexity by the reference's."""
        return self.perplexity / self.reference_perplexity

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` made."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def __str__(self) -> str:
        """The short form, one line."""
        return (
            f"KL {self.kl:.4f} nats to fp32, {100 * self.top1:.1f} % of top tokens kept, "
            f"perplexity × {self.perplexity_ratio:.3f} ({self.tokens:,.0f} tokens of text)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to millionths."""
        names = ("kl", "top1", "perplexity", "reference_perplexity", "perplexity_ratio")
        return {"tokens": self.tokens, **{name: round(getattr(self, name), 6) for name in names}}


class Reader(Protocol):
    """A model that reads."""

    def logits(self, window: Ids) -> Iterator[Floats]:
        """Logits [positions, vocab_size] of a window [tokens], of one of its `parts_of` at a time."""


def compare_text(
    text: Text,
    bundle: Bundle,
    reference: Bundle,
    engine: Engine,
    on_window: Callable[[int, int], None] = lambda *_: None,
) -> TextFidelity:
    """Read a text with a bundle and with its reference.

    Args:
        text: What is read.
        bundle: The model that is measured.
        reference: The same in float32.
        engine: Opens the token tables and decoders; the vision encoders stay closed.
        on_window: Called with the windows read so far and their total.

    Raises:
        IntegrityError: Logits are not finite.
    """
    with closing(BundleReader(bundle, engine)) as ours, closing(BundleReader(reference, engine)) as theirs:
        return compare_readers(text, ours, theirs, on_window)


def compare_readers(
    text: Text, ours: Reader, theirs: Reader, on_window: Callable[[int, int], None] = lambda *_: None
) -> TextFidelity:
    """Read a text with two models in step, so that the logits of a few positions are all that is ever held.

    Args:
        text: What is read.
        ours: The model that is measured.
        theirs: The same in float32.
        on_window: Called with the windows read so far and their total.

    Raises:
        IntegrityError: Logits are not finite.
    """
    totals = np.zeros(4)
    for done, window in enumerate(text.windows, 1):
        following = [window[1:][part] for part in parts_of(window)]
        for logits, reference_logits, tokens in zip(ours.logits(window), theirs.logits(window), following, strict=True):
            totals += _compare(_log_softmax(logits), _log_softmax(reference_logits), tokens)
        on_window(done, len(text.windows))
    if not np.isfinite(totals).all():
        raise IntegrityError("the logits of a model are not finite: export it again")
    kl, same, surprise, reference_surprise = totals.tolist()
    predicted = text.tokens - len(text.windows)
    return TextFidelity(
        tokens=text.tokens,
        kl=kl / text.tokens,
        top1=same / text.tokens,
        perplexity=float(np.exp(surprise / predicted)),
        reference_perplexity=float(np.exp(reference_surprise / predicted)),
    )


class BundleReader:
    """The text half of a bundle."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._embed_tokens = engine.graph(bundle.graph_path("embed_tokens", engine.target))
        self._decoder = engine.decoder(bundle.graph_path("decoder", engine.target))

    def logits(self, window: Ids) -> Iterator[Floats]:
        """Logits [positions, vocab_size] of a window [tokens], a part of it at a time."""
        self._decoder.truncate(0)
        inputs_embeds = self._embed_tokens(window[None])[0]
        for part in parts_of(window):
            yield self._decoder(inputs_embeds[part], logits_to_keep=len(inputs_embeds[part]))

    def close(self) -> None:
        """Close both graphs."""
        self._embed_tokens.close()
        self._decoder.close()


def parts_of(window: Ids) -> Iterator[slice]:
    """The stretches of a window that are read at once."""
    return (slice(start, start + POSITIONS_AT_ONCE) for start in range(0, len(window), POSITIONS_AT_ONCE))


def _compare(q: Doubles, p: Doubles, following: Ids) -> Doubles:
    """Sums over positions: KL(p || q), equal top tokens, and what is unlikely about the following tokens by q and p.

    Args:
        q: Log-probabilities [positions, vocab_size] of the model.
        p: Those of the reference.
        following: Token ids [positions], one less at the end of a window.
    """
    kl = np.sum(np.exp(p) * (p - q))
    same = np.sum(p.argmax(-1) == q.argmax(-1))
    places = np.arange(len(following)), following
    return np.array([kl, same, -q[places].sum(), -p[places].sum()])


def _log_softmax(logits: Floats) -> Doubles:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted
