"""Logits -> token id; pure functions on float32 [vocab_size].

The order and the meaning of the steps are those of transformers (generation/logits_process.py): repetition
penalty, temperature, top-k, top-p, min-p.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smolvlm_edge.errors import EngineError, RequestError

Logits = npt.NDArray[np.float32]
LOWEST_TEMPERATURE = 1e-6  # below, the likeliest token is certain and float32 overflows


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest (greedy)."""

    temperature: float = 0.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and the answer so far less likely."""
    seed: int | None = None
    """The same seed gives the same answer; None draws one."""

    def __post_init__(self) -> None:
        checks = {
            "temperature must be 0 or more": self.temperature >= 0,
            "top_k must be 0 or more": self.top_k >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "min_p must be from 0 to 1": 0 <= self.min_p <= 1,
            "repetition_penalty must be above 0 and finite": 0 < self.repetition_penalty < float("inf"),
            "seed must be 0 or more": self.seed is None or self.seed >= 0,
        }
        for rule, holds in checks.items():
            if not holds:
                raise RequestError(rule)


class Sampler:
    """A `Sampling` with its random generator and the tokens seen so far."""

    def __init__(self, sampling: Sampling, prompt_ids: npt.NDArray[np.int64]) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(prompt_ids.tolist())

    def __call__(self, logits: Logits) -> int:
        """The next token id.

        Raises:
            EngineError: The logits are not numbers.
        """
        if np.isnan(logits).any():
            raise EngineError("the model computed NaN instead of numbers: its weights are damaged or overflow")
        token = self._choose(logits)
        self._seen.add(token)
        return token

    def _choose(self, logits: Logits) -> int:
        sampling = self.sampling
        if sampling.repetition_penalty != 1:
            logits = penalise(logits, list(self._seen), sampling.repetition_penalty)
        if sampling.temperature < LOWEST_TEMPERATURE:
            return int(logits.argmax())
        logits = logits / np.float32(sampling.temperature)
        logits = keep_top_k(logits, sampling.top_k)
        logits = keep_top_p(logits, sampling.top_p)
        logits = keep_min_p(logits, sampling.min_p)
        probabilities = softmax(logits).astype(np.float64)
        return int(self._random.choice(len(logits), p=probabilities / probabilities.sum()))


def penalise(logits: Logits, token_ids: list[int], penalty: float) -> Logits:
    """Divide the positive and multiply the negative logits of the given tokens by `penalty` (arXiv 1909.05858)."""
    logits = logits.copy()
    chosen = logits[token_ids]
    logits[token_ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return logits


def keep_top_k(logits: Logits, k: int) -> Logits:
    """All but the k largest become -inf; ties with the k-th stay. 0 keeps all."""
    if k == 0 or k >= len(logits):
        return logits
    threshold = np.partition(logits, -k)[-k]
    return np.where(logits < threshold, np.float32(-np.inf), logits)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """All but the largest whose probabilities just reach p become -inf (arXiv 1904.09751); one always stays."""
    if p >= 1:
        return logits
    order = np.argsort(logits, kind="stable")
    below = np.cumsum(softmax(logits[order]), dtype=np.float64).astype(np.float32) <= 1 - p
    below[-1] = False
    kept = logits.copy()
    kept[order[below]] = -np.inf
    return kept


def keep_min_p(logits: Logits, min_p: float) -> Logits:
    """All below min_p times the largest probability become -inf (arXiv 2407.01082)."""
    if min_p == 0:
        return logits
    probabilities = softmax(logits)
    return np.where(probabilities < min_p * probabilities.max(), np.float32(-np.inf), logits)


def softmax(logits: Logits) -> Logits:
    """Probabilities [vocab_size]."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
