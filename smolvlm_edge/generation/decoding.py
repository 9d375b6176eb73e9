"""Prefill and the token loop; knows arrays and token ids only."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.graphs import Decoder, Floats, Graph


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer."""

    token_id: int
    logprobs: Logprobs | None = None
    """None unless they were asked for."""

    @classmethod
    def choose(cls, logits: Floats, choose: Callable[[Floats], int], top_logprobs: int | None) -> Self:
        """Take a token.

        Args:
            logits: The model's [vocab_size].
            choose: The sampler.
            top_logprobs: Of how many tokens to tell how likely they were; None tells nothing.
        """
        token = choose(logits)
        return cls(token, None if top_logprobs is None else Logprobs.of(logits, token, top_logprobs))


def prefill(decoder: Decoder, inputs_embeds: Floats, on_chunk: Callable[[], None] = lambda: None) -> Floats:
    """Fill the cache with a prompt [positions, hidden]; return the logits [vocab_size] of its last position."""
    decoder.reserve(decoder.length + len(inputs_embeds))
    for start in range(0, len(inputs_embeds), decoder.chunk):
        logits = decoder(inputs_embeds[start : start + decoder.chunk])
        on_chunk()
    return logits[-1]


def decode(
    decoder: Decoder,
    embed_tokens: Graph,
    logits: Floats,
    choose: Callable[[Floats], int],
    eos_token_ids: Collection[int],
    max_tokens: int,
    top_logprobs: int | None = None,
) -> Iterator[Step]:
    """Tokens one by one, an end token included; at most `max_tokens`.

    Args:
        decoder: With the prompt in its cache.
        embed_tokens: input_ids [1, 1] -> inputs_embeds [1, 1, hidden].
        logits: Of the prompt's last position.
        choose: The sampler.
        eos_token_ids: Any of these ends the answer.
        max_tokens: Longest answer.
        top_logprobs: Of how many tokens to tell how likely they were; None tells nothing.
    """
    for count in range(1, max_tokens + 1):
        step = Step.choose(logits, choose, top_logprobs)
        yield step
        if step.token_id in eos_token_ids or count == max_tokens:
            return
        logits = decoder(embed_tokens(np.array([[step.token_id]], np.int64))[0])[-1]
