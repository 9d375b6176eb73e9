"""Constrained decoding: only tokens with which the answer goes on validly may be chosen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smolvlm_edge.constraints import Constraint, OnLimit, reason_of
from smolvlm_edge.constraints.vocabulary import Vocabulary
from smolvlm_edge.errors import RequestError

if TYPE_CHECKING:
    from smolvlm_edge.constraints.endings import Endings


class Guide:
    """Stands before a sampler, and lets it choose among the tokens with which the answer goes on validly."""

    def __init__(
        self,
        constraint: Constraint,
        prefix: str,
        vocabulary: Vocabulary,
        sampler: Callable[[npt.NDArray[np.float32]], int],
        max_tokens: int,
        on_limit: OnLimit,
        measure: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Begin an answer.

        Args:
            constraint: Its form.
            prefix: What it begins with before its text; see `ModelInput.answer_prefix`.
            vocabulary: The model's.
            sampler: Chooses among the tokens that are left.
            max_tokens: Longest answer.
            on_limit: With `complete`, a token is not taken if the answer could not be completed in time after it:
                from there the shortest ending takes the model's place.
            measure: What is done inside counts as the cost of the constraint.

        Raises:
            RequestError: Not even the shortest answer has room, or llguidance gives up on the constraint.
        """
        from llguidance import LLMatcher  # noqa: PLC0415 - an extra

        from smolvlm_edge.constraints.endings import Endings, limits  # noqa: PLC0415

        self.ended = False
        """Whether the answer is complete, and nothing can come after it."""
        self.cut = False
        """Whether it was completed because of the limit."""
        self._vocabulary, self._sampler, self._measure = vocabulary, sampler, measure
        self._left, self._tail = max_tokens, list[int]()
        with measure():
            grammar = constraint.grammar(prefix)
            self._matcher = LLMatcher(vocabulary.tokens, grammar, log_level=0, limits=limits())
            self._endings = Endings(grammar) if on_limit == "complete" else None
            if self._endings:
                self._check_room(self._endings)

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token id.

        Raises:
            RequestError: llguidance gives up on the constraint.
        """
        self._left -= 1
        if not self._tail:
            with self._measure():
                allowed = self._allowed(len(logits))
            token = self._sampler(np.where(allowed, logits, np.float32(-np.inf)))
            with self._measure():
                if self._follow(token):
                    return token
                self._tail = self._shortest_tail()
        token = self._tail.pop(0)
        self.cut = not self._tail
        return token

    def _allowed(self, vocab_size: int) -> npt.NDArray[np.bool_]:
        """Which tokens may come next [vocab_size]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            raise RequestError(f"llguidance found no way on with an answer of this form: {reason_of(self._matcher)}")
        return allowed

    def _follow(self, token: int) -> bool:
        """Whether the answer goes on with this token; it does not if there would be no room for an ending."""
        vocabulary = self._vocabulary
        if token in vocabulary.eos_token_ids:
            return True
        if self._endings and not self._endings.follow(vocabulary.tokens.decode_bytes([token]), self._has_room):
            return False
        self._matcher.consume_token(token)
        self.ended = self._matcher.is_stopped()
        return True

    def _shortest_tail(self) -> list[int]:
        """Tokens that complete the answer; an end token if it is complete."""
        assert self._endings is not None
        self._left += 1  # the token that was not taken
        known = self._endings.ending
        self._endings.shorten()
        ending = self._endings.ending if self._has_room(self._endings.ending) else known
        return self._vocabulary.spell(ending or b"") or [min(self._vocabulary.eos_token_ids)]

    def _has_room(self, ending: bytes | None) -> bool:
        return ending is not None and self._vocabulary.fits(ending, self._left)

    def _check_room(self, endings: "Endings") -> None:
        if not self._has_room(endings.ending):
            endings.shorten(self._has_room)
        if endings.ending is None:
            raise RequestError(
                "no end was found for an answer of this form: leave on_limit='complete' (--complete) out"
            )
        if not self._has_room(endings.ending):
            tokens = len(self._vocabulary.spell(endings.ending) or ())
            raise RequestError(
                f"an answer of at most {self._left} tokens has no room for this form: the shortest takes {tokens}"
            )
