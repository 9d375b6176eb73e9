"""Tokens as texts and bytes, one by one: half a character is bytes, and no text."""

from functools import cache

from tokenizers import Tokenizer

from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.server.protocol.chat import TokenLogprob, TopLogprob


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes that a token of a byte-level tokenizer, as all of this family are, stands for."""
    token = tokenizer.id_to_token(token_id) or ""
    alphabet = _byte_level()
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:  # an added token, which is written as it is
        return token.encode()


def token_logprob(tokenizer: Tokenizer, token_id: int, logprobs: Logprobs) -> TokenLogprob:
    """How likely a token was, as OpenAI words it."""
    top = [TopLogprob(*_piece(tokenizer, id_, logprob)) for id_, logprob in logprobs.top]
    return TokenLogprob(*_piece(tokenizer, token_id, logprobs.chosen), top)


def _piece(tokenizer: Tokenizer, token_id: int, logprob: float) -> tuple[str, float, list[int]]:
    data = token_bytes(tokenizer, token_id)
    return data.decode(errors="replace"), max(logprob, -9999.0), list(data)  # JSON has no infinity


@cache
def _byte_level() -> dict[str, int]:
    """The character that GPT-2's alphabet has for each byte (transformers, bytes_to_unicode) -> the byte."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
