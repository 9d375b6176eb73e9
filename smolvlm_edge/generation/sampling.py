"""Logits -> token id; pure functions on float32 [vocab_size].

The order and the meaning of the steps are those of transformers 5.23 (generation/utils.py, _get_logits_processor, and
generation/logits_process.py): biases, repetition penalty, repeated n-grams, bad words, least length, an end that grows
likelier, suppressed tokens; then temperature, top-k, top-p, min-p, typical-p, epsilon and eta. OpenAI's bias and two
penalties, which transformers has not, stand behind the first two.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from smolvlm_edge.errors import EngineError, RequestError
from smolvlm_edge.generation.logits import (
    Logits,
    add_bias,
    ends_of_runs,
    forbid,
    keep_epsilon,
    keep_eta,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    lengthen,
    penalise,
    penalise_answer,
    softmax,
)
from smolvlm_edge.values import MOST, are_biases, are_ids, are_runs, check, is_bias, is_decay, is_real, is_whole

LOWEST_TEMPERATURE = 1e-6  # below, the likeliest token is certain and float32 overflows


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest (greedy).

    Raises:
        RequestError: A value makes no sense.
    """

    temperature: float = 0.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the likeliest one's probability."""
    typical_p: float = 1.0
    """Keep the tokens that surprise most nearly as much as is to be expected and together reach this probability."""
    epsilon_cutoff: float = 0.0
    """Keep tokens at least so probable."""
    eta_cutoff: float = 0.0
    """As `epsilon_cutoff`, but keep more where many tokens are likely."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and the answer so far less likely."""
    presence_penalty: float = 0.0
    """From -2 to 2: subtracted from the logits of tokens that the answer has already."""
    frequency_penalty: float = 0.0
    """From -2 to 2: subtracted as many times as the answer has the token."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """From -100 to 100, by token id: added to its logit before anything else."""
    sequence_bias: Sequence[tuple[Sequence[int], float]] = ()
    """Runs of tokens, each with a number that is added to its last token's logit where the others went before."""
    no_repeat_ngram_size: int = 0
    """No run of so many tokens comes twice in prompt and answer; 0 allows it."""
    bad_words_ids: Sequence[Sequence[int]] = ()
    """Runs of tokens that the answer must not have."""
    suppress_tokens: Sequence[int] = ()
    """Tokens that the answer must not have."""
    begin_suppress_tokens: Sequence[int] = ()
    """Tokens that the answer must not begin with."""
    min_tokens: int | None = None
    """The answer does not end by itself before it has so many tokens; 0 and None let it."""
    min_length: int = 0
    """The same for the prompt and the answer together, unless `min_tokens` says something."""
    exponential_decay_length_penalty: tuple[int, float] | None = None
    """After so many tokens, the answer's end becomes likelier with each one, by this factor."""
    seed: int | None = None
    """The same seed gives the same answer; None draws one."""

    def __post_init__(self) -> None:
        check(
            {
                "temperature must be 0 or more and finite": is_real(self.temperature, 0, MOST),
                "top_k must be a whole number, 0 or more": is_whole(self.top_k),
                "top_p must be above 0 and at most 1": is_real(self.top_p, 0, 1) and self.top_p > 0,
                "min_p must be from 0 to 1": is_real(self.min_p, 0, 1),
                "typical_p must be above 0 and at most 1": is_real(self.typical_p, 0, 1) and self.typical_p > 0,
                "epsilon_cutoff must be 0 or more and below 1": is_real(self.epsilon_cutoff, 0, 1)
                and self.epsilon_cutoff < 1,
                "eta_cutoff must be 0 or more and below 1": is_real(self.eta_cutoff, 0, 1) and self.eta_cutoff < 1,
                "repetition_penalty must be above 0 and finite": is_real(self.repetition_penalty, 0, MOST)
                and self.repetition_penalty > 0,
                "presence_penalty must be from -2 to 2": is_real(self.presence_penalty, -2, 2),
                "frequency_penalty must be from -2 to 2": is_real(self.frequency_penalty, -2, 2),
                "logit_bias must map token ids to numbers from -100 to 100": is_bias(self.logit_bias),
                "sequence_bias must be pairs of token ids and a finite number": are_biases(self.sequence_bias),
                "no_repeat_ngram_size must be a whole number, 0 or more": is_whole(self.no_repeat_ngram_size),
                "bad_words_ids must be lists of one token id or more": are_runs(self.bad_words_ids),
                "suppress_tokens must be token ids": are_ids(self.suppress_tokens),
                "begin_suppress_tokens must be token ids": are_ids(self.begin_suppress_tokens),
                "min_tokens must be a whole number, 0 or more, or None": self.min_tokens is None
                or is_whole(self.min_tokens),
                "min_length must be a whole number, 0 or more": is_whole(self.min_length),
                "exponential_decay_length_penalty must be a number of tokens and a factor above 0, or None": (
                    self.exponential_decay_length_penalty is None or is_decay(self.exponential_decay_length_penalty)
                ),
                "seed must be a whole number, 0 or more, or None": self.seed is None or is_whole(self.seed, most=None),
            }
        )

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuse token ids that the model has not.

        Raises:
            RequestError: There is one.
        """
        ids = {
            "logit_bias": self.logit_bias,
            "sequence_bias": (token for run, _ in self.sequence_bias for token in run),
            "bad_words_ids": (token for run in self.bad_words_ids for token in run),
            "suppress_tokens": self.suppress_tokens,
            "begin_suppress_tokens": self.begin_suppress_tokens,
        }
        for name, tokens in ids.items():
            if (largest := max(tokens, default=0)) >= vocab_size:
                raise RequestError(f"{name}: the model has no token {largest}, its vocabulary ends at {vocab_size - 1}")


class Sampler:
    """A `Sampling` with its random generator and the tokens seen so far."""

    def __init__(
        self, sampling: Sampling, prompt_ids: npt.NDArray[np.int64], eos_token_ids: Collection[int] = ()
    ) -> None:
        """Begin an answer.

        Args:
            sampling: How to choose.
            prompt_ids: Token ids of the prompt [positions].
            eos_token_ids: What ends the answer. A bad word that is one of them alone is let through, as in
                transformers: the answer would never end.
        """
        self._eos_token_ids = tuple(eos_token_ids)
        least = sampling.min_length - len(prompt_ids) if sampling.min_tokens is None else sampling.min_tokens
        self._least = least  # tokens of the answer
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(prompt_ids.tolist())
        self._answer: Counter[int] = Counter()
        self._length = 0  # of the answer
        self._bad_words = [
            tuple(run) for run in sampling.bad_words_ids if tuple(run) not in {(e,) for e in eos_token_ids}
        ]
        self._biases = {tuple(run): bias for run, bias in sampling.sequence_bias}
        # of prompt and answer, where runs of tokens count: one may begin in the prompt
        self._runs_count = bool(sampling.no_repeat_ngram_size or self._bad_words or self._biases)
        self._ids: list[int] = prompt_ids.tolist() if self._runs_count else []
        self._ngrams = _Ngrams(sampling.no_repeat_ngram_size, self._ids)

    def __call__(self, logits: Logits) -> int:
        """The next token id.

        Raises:
            EngineError: The logits are not numbers.
            RequestError: The options forbid every token.
        """
        if np.isnan(logits).any():
            raise EngineError("the model computed NaN instead of numbers: its weights are damaged or overflow")
        token = self._choose(logits)
        self.follow(token)
        return token

    def follow(self, token: int) -> None:
        """Count a token as the answer's next one."""
        self._seen.add(token)
        self._answer[token] += 1
        self._length += 1
        if self._runs_count:
            self._ids.append(token)
            self._ngrams.add(self._ids)

    def _choose(self, logits: Logits) -> int:
        sampling = self.sampling
        logits = self._forbid(self._penalise(logits))
        if not np.isfinite(logits.max()):
            raise RequestError(
                "the answer cannot go on: no_repeat_ngram_size, bad_words_ids, suppress_tokens, min_tokens and its "
                "form leave no token to choose"
            )
        if sampling.temperature < LOWEST_TEMPERATURE:
            return int(logits.argmax())
        logits = logits / np.float32(sampling.temperature)
        logits = keep_top_k(logits, sampling.top_k)
        logits = keep_top_p(logits, sampling.top_p)
        logits = keep_min_p(logits, sampling.min_p)
        logits = keep_typical(logits, sampling.typical_p)
        logits = keep_epsilon(logits, sampling.epsilon_cutoff)
        logits = keep_eta(logits, sampling.eta_cutoff)
        probabilities = softmax(logits).astype(np.float64)
        return int(self._random.choice(len(logits), p=probabilities / probabilities.sum()))

    def _penalise(self, logits: Logits) -> Logits:
        sampling = self.sampling
        if self._biases:
            logits = add_bias(logits, self._biases_now())
        if sampling.logit_bias:
            logits = add_bias(logits, sampling.logit_bias)
        if sampling.repetition_penalty != 1:
            logits = penalise(logits, list(self._seen), sampling.repetition_penalty)
        if sampling.presence_penalty or sampling.frequency_penalty:
            logits = penalise_answer(logits, self._answer, sampling.presence_penalty, sampling.frequency_penalty)
        if (decay := sampling.exponential_decay_length_penalty) and (late := self._length - decay[0]) > 0:
            logits = lengthen(logits, self._eos_token_ids, decay[1] ** late)
        return logits

    def _biases_now(self) -> Mapping[int, float]:
        """The biases of those runs that the next token may complete, by that token."""
        biases = Counter[int]()
        for run, bias in self._biases.items():
            for token in ends_of_runs([run], self._ids):
                biases[token] += bias  # type: ignore[assignment]
        return biases

    def _forbid(self, logits: Logits) -> Logits:
        forbidden = {*self.sampling.suppress_tokens, *self._ngrams.next_tokens(self._ids)}
        forbidden |= ends_of_runs(self._bad_words, self._ids)
        if not self._length:
            forbidden |= set(self.sampling.begin_suppress_tokens)
        if self._length < self._least:
            forbidden |= set(self._eos_token_ids)
        return forbid(logits, forbidden) if forbidden else logits


class _Ngrams:
    """Which token follows which run of n - 1 tokens."""

    def __init__(self, size: int, ids: Sequence[int]) -> None:
        self._size = size
        self._followers: dict[tuple[int, ...], set[int]] = {}
        for end in range(size, len(ids) + 1 if size else 0):
            self.add(ids[end - size : end])

    def add(self, ids: Sequence[int]) -> None:
        """Take note of the last n tokens."""
        if self._size and len(ids) >= self._size:
            *run, token = ids[-self._size :]
            self._followers.setdefault(tuple(run), set()).add(token)

    def next_tokens(self, ids: Sequence[int]) -> Collection[int]:
        """The tokens that would make the last n a repetition."""
        if not self._size or len(ids) + 1 < self._size:
            return ()
        return self._followers.get(tuple(ids[len(ids) + 1 - self._size :]), ())
