"""The tokens of an answer, as they come -> its text, and how it ends."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from smolvlm_edge.constraints import Constraint
from smolvlm_edge.constraints.guide import Guide
from smolvlm_edge.generation.detokenizer import Detokenizer
from smolvlm_edge.generation.loops import LoopDetector

if TYPE_CHECKING:
    from smolvlm_edge.generation.answer import FinishReason


class Reply:
    """An answer under way."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        hidden_token_ids: Collection[int],
        prefix: str,
        eos_token_ids: Collection[int],
        max_tokens: int,
        stop: str | Sequence[str] = (),
        constraint: Constraint | None = None,
        guide: Guide | None = None,
        *,
        stop_loops: bool = False,
    ) -> None:
        """Begin one.

        Args:
            tokenizer: The model's.
            hidden_token_ids: Tokens that are no text of an answer; see `PromptEncoder.hidden_token_ids`.
            prefix: What it begins with before its text; see `ModelInput.answer_prefix`.
            eos_token_ids: Tokens that end the answer.
            max_tokens: How many it may have.
            stop: Texts that end it.
            constraint: The form that it must have.
            guide: Who keeps it to that form.
            stop_loops: End it once it repeats itself.
        """
        texts = [stop] if isinstance(stop, str) else stop
        self._detokenizer = Detokenizer(tokenizer, texts, hidden_token_ids, prefix)
        self._eos_token_ids, self.max_tokens = eos_token_ids, max_tokens
        self._constraint, self._guide = constraint, guide
        self._loops = LoopDetector() if stop_loops else None
        self._text = ""
        self.tokens = 0
        """So many have come."""
        self.finish_reason: FinishReason | None = None
        """Why it ended; None while it goes on."""

    def push(self, token: int) -> str:
        """The text that a token adds, as far as it is certain.

        Raises:
            IncompleteError: The answer ends with this token and has not the form that it must have.
        """
        self.tokens += 1
        guide = self._guide
        ended = token in self._eos_token_ids or (guide is not None and guide.ended)
        cut = self.tokens == self.max_tokens or (guide is not None and guide.cut)
        cut = cut or (self._loops is not None and self._loops.push(token))
        text = self._detokenizer.push(token)
        if ended or cut:
            text += self._detokenizer.flush()
        if ended or self._detokenizer.stopped:
            self.finish_reason = "stop"
        elif cut:
            self.finish_reason = "length"
        self._text += text
        if self._constraint and self.finish_reason:
            self._constraint.check(self._text, self.max_tokens)
        return text
