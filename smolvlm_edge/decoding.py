"""Prefill and the token loop; knows arrays and token ids only."""

from collections.abc import Callable, Collection, Iterator

import numpy as np

from smolvlm_edge.graphs import Decoder, Floats, Graph

PREFILL_CHUNK = 128
"""Positions prefilled at once. Attention weights of a chunk take heads × chunk × context × 4 bytes: 38 MB for
8,192 positions of the 256M shape, where the whole prompt at once would take 2.4 GB."""


def prefill(decoder: Decoder, inputs_embeds: Floats) -> Floats:
    """Fill the cache with a prompt [positions, hidden]; return the logits [vocab_size] of its last position."""
    decoder.reserve(decoder.length + len(inputs_embeds))
    for start in range(0, len(inputs_embeds), PREFILL_CHUNK):
        logits = decoder(inputs_embeds[start : start + PREFILL_CHUNK])
    return logits[-1]


def decode(
    decoder: Decoder,
    embed_tokens: Graph,
    logits: Floats,
    choose: Callable[[Floats], int],
    eos_token_ids: Collection[int],
    max_tokens: int,
) -> Iterator[int]:
    """Token ids one by one, an end token included; at most `max_tokens`.

    Args:
        decoder: With the prompt in its cache.
        embed_tokens: input_ids [1, 1] -> inputs_embeds [1, 1, hidden].
        logits: Of the prompt's last position.
        choose: The sampler.
        eos_token_ids: Any of these ends the answer.
        max_tokens: Longest answer.
    """
    for count in range(1, max_tokens + 1):
        token = choose(logits)
        yield token
        if token in eos_token_ids or count == max_tokens:
            return
        logits = decoder(embed_tokens(np.array([[token]], np.int64))[0])[-1]
