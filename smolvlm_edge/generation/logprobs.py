"""How likely the model itself found a token: natural logarithms, before temperature, penalty or constraint."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from smolvlm_edge.graphs import Floats


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of one token of an answer."""

    chosen: float
    """That of the token that was taken."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens, likeliest first: token id, log-probability. Of equals, the lower id comes first."""

    @classmethod
    def of(cls, logits: Floats, token_id: int, count: int) -> Self:
        """Those of a token and of the `count` likeliest ones.

        Args:
            logits: The model's own [vocab_size].
            token_id: The token that was taken.
            count: At most as many as there are tokens.
        """
        # in double precision, because a sum of 49,280 exponentials in single precision is off in the fourth digit
        shifted = logits.astype(np.float64) - logits.max()
        logarithms = shifted - np.log(np.exp(shifted).sum())
        count = min(count, len(logarithms))
        threshold = np.partition(logarithms, -count)[-count] if count else np.inf
        candidates = np.flatnonzero(logarithms >= threshold)
        best = candidates[np.argsort(-logarithms[candidates], kind="stable")][:count]
        return cls(float(logarithms[token_id]), tuple((int(each), float(logarithms[each])) for each in best))
