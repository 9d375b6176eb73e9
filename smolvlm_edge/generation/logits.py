"""What is done to logits before a token is drawn: pure functions on float32 [vocab_size]; -inf is a token ruled out."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


def add_bias(logits: Logits, bias: Mapping[int, float]) -> Logits:
    """Add a number to the logit of each of these tokens (OpenAI, Chat Completions, logit_bias)."""
    logits = logits.copy()
    logits[list(bias)] += np.array(list(bias.values()), np.float32)
    return logits


def penalise(logits: Logits, token_ids: list[int], penalty: float) -> Logits:
    """Divide the positive and multiply the negative logits of the given tokens by `penalty` (arXiv 1909.05858)."""
    logits = logits.copy()
    chosen = logits[token_ids]
    logits[token_ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return logits


def penalise_answer(logits: Logits, counts: Mapping[int, int], presence: float, frequency: float) -> Logits:
    """Subtract `count * frequency + presence` from the logits of tokens that the answer has.

    That is OpenAI's definition (API documentation, "Frequency and presence penalties": mu[j] -> mu[j] - c[j] *
    alpha_frequency - float(c[j] > 0) * alpha_presence), where c counts the tokens sampled before this one.
    """
    return add_bias(logits, {token: -(count * frequency + presence) for token, count in counts.items()})


def forbid(logits: Logits, token_ids: Iterable[int]) -> Logits:
    """The logits of these tokens become -inf."""
    logits = logits.copy()
    logits[list(token_ids)] = -np.inf
    return logits


def ends_of_runs(runs: Iterable[Sequence[int]], ids: Sequence[int]) -> set[int]:
    """The last tokens of those runs of which all other tokens stand at the end of `ids`."""
    return {run[-1] for run in runs if len(run) == 1 or tuple(ids[1 - len(run) :]) == tuple(run[:-1])}


def lengthen(logits: Logits, end_tokens: Sequence[int], factor: float) -> Logits:
    """Raise the logits of the end tokens by `factor - 1` times what they are without their sign."""
    logits = logits.copy()
    chosen = logits[list(end_tokens)]
    logits[list(end_tokens)] += np.where(np.isfinite(chosen), np.abs(chosen) * np.float32(factor - 1), np.float32(0))
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


def keep_typical(logits: Logits, p: float) -> Logits:
    """All but those whose surprise is nearest to the entropy, until they reach p, become -inf (arXiv 2202.00666)."""
    if p >= 1:
        return logits
    distances = np.abs(-_log_softmax(logits) - _entropy(logits))
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(softmax(logits[order]), dtype=np.float64).astype(np.float32)
    last = min(int((reached < p).sum()), len(logits) - 1)
    out = distances > distances[order[last]]
    out[order[0]] = False
    return np.where(out, np.float32(-np.inf), logits)


def keep_epsilon(logits: Logits, epsilon: float) -> Logits:
    """All less probable than epsilon become -inf; the likeliest stay (arXiv 2210.15191)."""
    if epsilon == 0:
        return logits
    return np.where((softmax(logits) < epsilon) & (logits < logits.max()), np.float32(-np.inf), logits)


def keep_eta(logits: Logits, epsilon: float) -> Logits:
    """As `keep_epsilon`, with less where the entropy is high: sqrt(epsilon) * exp(-entropy) (arXiv 2210.15191)."""
    if epsilon == 0:
        return logits
    return keep_epsilon(logits, min(epsilon, float(np.sqrt(epsilon) * np.exp(-_entropy(logits)))))


def softmax(logits: Logits) -> Logits:
    """Probabilities [vocab_size]."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _entropy(logits: Logits) -> np.float32:
    """In nats."""
    logarithms = _log_softmax(logits[np.isfinite(logits)])
    return -np.sum(np.exp(logarithms) * logarithms, dtype=np.float32)
