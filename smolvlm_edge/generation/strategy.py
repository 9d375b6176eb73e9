"""The decoding strategy of an answer: what chooses its tokens, and what makes text of them."""

from collections.abc import Callable, Collection
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.constraints import Constraint
from smolvlm_edge.constraints.guide import Guide
from smolvlm_edge.constraints.vocabulary import Vocabulary
from smolvlm_edge.generation.answer import GenerateOptions, check_options
from smolvlm_edge.generation.reply import Reply
from smolvlm_edge.generation.sampling import Sampler
from smolvlm_edge.generation.timings import Clock
from smolvlm_edge.graphs import Floats


class Tokens:
    """A model's tokens, as decoding needs to know them."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig, hidden: Collection[int]) -> None:
        """Take them over.

        Args:
            tokenizer: The model's.
            config: Knows how many there are and which end an answer.
            hidden: Tokens that are no text of an answer; see `PromptEncoder.hidden_token_ids`.
        """
        self.tokenizer, self.config, self.hidden = tokenizer, config, hidden

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """For answers of a given form.

        Raises:
            EngineError: llguidance does not know this kind of tokenizer.
        """
        config = self.config
        return Vocabulary(self.tokenizer, config.text.vocab_size, config.eos_token_ids, self.hidden)


class Strategy:
    """What was asked of one answer, which may still wait for its turn."""

    def __init__(self, tokens: Tokens, options: GenerateOptions) -> None:
        """Check the options, beside the model's own defaults; raises as `check_options`."""
        config = tokens.config
        self._tokens, self._options = tokens, options
        self._sampling, self._max_tokens, self._constraint = check_options(options, config.generation.options())
        self._sampling.check_vocabulary(config.text.vocab_size)

    def begin(
        self, input_ids: npt.NDArray[np.int64], prefix: str, room: int, clock: Clock
    ) -> tuple[Callable[[Floats], int], Reply]:
        """What takes logits [vocab_size] and chooses a token, and where the tokens go.

        Args:
            input_ids: The prompt [positions], which penalties go by.
            prefix: What the answer begins with before its text; see `ModelInput.answer_prefix`.
            room: Tokens that the context has left.
            clock: Measures the cost of a constraint.

        Raises:
            RequestError: There is no room for an answer of the form that was asked for.
            EngineError: llguidance does not know this kind of tokenizer.
        """
        tokens, options, max_tokens = self._tokens, self._options, min(self._max_tokens, room)
        eos_token_ids = tokens.config.eos_token_ids
        sampler = Sampler(self._sampling, input_ids, eos_token_ids)
        guide = self._guide(self._constraint, prefix, sampler, max_tokens, clock) if self._constraint else None
        reply = Reply(
            tokens.tokenizer,
            tokens.hidden if options.get("skip_special_tokens", True) else eos_token_ids,
            prefix,
            eos_token_ids,
            max_tokens,
            options.get("stop", ()),
            self._constraint,
            guide,
            stop_loops=options.get("stop_loops", False),
        )
        return guide or sampler, reply

    def _guide(self, constraint: Constraint, prefix: str, sampler: Sampler, max_tokens: int, clock: Clock) -> Guide:
        with clock.measure("load_ms"):
            vocabulary = self._tokens.vocabulary
        on_limit, measure = self._options.get("on_limit", "error"), partial(clock.measure, "constraint_ms")
        return Guide(constraint, prefix, vocabulary, sampler, max_tokens, on_limit, measure)
