"""A model's tokens in the form that llguidance works on, and texts spelled in them."""

import json
from collections.abc import Collection
from functools import cached_property

from tokenizers import Tokenizer

from smolvlm_edge.bundle.tokenizer import tokenizing
from smolvlm_edge.errors import EngineError

UNSPEAKABLE = "\U000f0001"
"""Begins the names that hidden tokens have here; a character for private use, which nobody asks for."""


class Vocabulary:
    """A model's tokens in the form that llguidance works on; made once for a model."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Collection[int], hidden: Collection[int]
    ) -> None:
        """Take a tokenizer over.

        Args:
            tokenizer: The model's.
            vocab_size: Number of its logits; the tokenizer may have fewer tokens, or more.
            eos_token_ids: Tokens that end an answer.
            hidden: Tokens that are no text of an answer. What is spelled like one of them is spelled in others;
                special tokens that are text, such as DocTags, count as any other.

        Raises:
            EngineError: llguidance does not know this kind of tokenizer.
        """
        from llguidance import LLTokenizer  # noqa: PLC0415 - an extra

        self.eos_token_ids, self._vocab_size = frozenset(eos_token_ids), vocab_size
        try:
            with tokenizing():
                size, text = max(vocab_size, tokenizer.get_vocab_size()), _renamed(tokenizer.to_str(), hidden)
            self.tokens = LLTokenizer(text, n_vocab=size, eos_token=sorted(eos_token_ids))
        except (ValueError, TypeError, OverflowError) as error:
            raise EngineError(f"llguidance cannot work with this model's tokenizer: {error}") from error

    def fits(self, text: bytes, max_tokens: int) -> bool:
        """Whether a text can be made of so many tokens."""
        if self._has_all_bytes and len(text) <= max_tokens:
            return True
        tokens = self.spell(text)
        return tokens is not None and len(tokens) <= max_tokens

    def spell(self, text: bytes) -> list[int] | None:
        """The fewest tokens that make up a text; None if the vocabulary has not all of its bytes."""
        best: list[list[int] | None] = [[]]
        for end in range(1, len(text) + 1):
            starts = range(max(0, end - self._longest), end)
            ways = [
                [*before, token]
                for start in starts
                if (before := best[start]) is not None and (token := self._ids.get(text[start:end])) is not None
            ]
            best.append(min(ways, key=len, default=None))
        return best[-1]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        tokens = self.tokens
        ordinary = (id_ for id_ in range(self._vocab_size) if not tokens.is_special_token(id_))
        return {tokens.decode_bytes([id_]): id_ for id_ in ordinary}

    @cached_property
    def _has_all_bytes(self) -> bool:
        return all(bytes([byte]) in self._ids for byte in range(0xF5))  # UTF-8 has no others

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids))


def _renamed(tokenizer: str, hidden: Collection[int]) -> str:
    """tokenizer.json in which hidden tokens have other names.

    Where a text is certain, llguidance takes the tokens that the tokenizer makes of it: of `<image>`, the one for
    pictures.
    """
    values = json.loads(tokenizer)
    names = {}
    for token in values["added_tokens"]:
        if token["id"] in hidden:
            names[token["content"]] = token["content"] = f"{UNSPEAKABLE}{token['id']}"
        token["special"] = token["id"] in hidden
    vocabulary = values["model"].get("vocab")
    if isinstance(vocabulary, dict):
        values["model"]["vocab"] = {names.get(name, name): id_ for name, id_ in vocabulary.items()}
    values["post_processor"] = None  # it may name them, and adds nothing to an answer
    return json.dumps(values)
