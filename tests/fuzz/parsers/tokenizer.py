"""tokenizer.json and tokenizer_config.json, and a prompt in their tokens."""

from pathlib import Path

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.constraints.vocabulary import Vocabulary
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.generation.detokenizer import Detokenizer
from tests.fuzz.parsers import TINY, link_tiny, tiny

CONFIG = ModelConfig.from_folder(TINY)


def seeds(_: Path) -> list[bytes]:
    return tiny("tokenizer.json", "tokenizer.json", "tokenizer_config.json")


def parse(data: bytes, folder: Path) -> None:
    name = "tokenizer.json" if b'"model"' in data else "tokenizer_config.json"
    link_tiny(folder, name)
    place = folder / name
    place.unlink(missing_ok=True)
    place.write_bytes(data)
    try:
        encoder = PromptEncoder(folder, CONFIG)
        ids = encoder.encode([{"role": "user", "content": "What is <i>  this</i>?\n\n12"}], []).tolist()
        detokenizer = Detokenizer(encoder.tokenizer, ["stop"], encoder.hidden_token_ids, encoder.answer_prefix)
        for token in ids[:20]:
            detokenizer.push(token)
        Vocabulary(encoder.tokenizer, CONFIG.text.vocab_size, CONFIG.eos_token_ids, encoder.hidden_token_ids)
    finally:
        place.unlink()
