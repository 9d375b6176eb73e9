"""Which token ends the assistant's words, by the chat template."""

from typing import TYPE_CHECKING

from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.errors import RequestError

if TYPE_CHECKING:
    from smolvlm_edge.conversation.template import Message

WORDS = "Zebra 7"  # no template writes them itself


def turn_end(encoder: PromptEncoder, vocab_size: int) -> int | None:
    """The special token that the template writes behind an assistant's words; None if there is no such token."""
    said: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": WORDS}]
    try:
        text = encoder.render(said)
    except RequestError:  # a template that knows no answers
        return None
    _, found, after = text.rpartition(WORDS)
    ids = encoder.tokenizer.encode(after.lstrip(), add_special_tokens=False).ids if found else []
    special = {id_ for id_, token in encoder.tokenizer.get_added_tokens_decoder().items() if token.special}
    return ids[0] if ids and ids[0] in special and ids[0] < vocab_size else None
