"""The family's tokenizers with a fraction of their vocabulary."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

RELEASED = Path(__file__).parent / "released"
SMOLVLM, GRANITE = "smolvlm-256m-instruct", "granite-docling-258m"
"""Folders in tests/released."""

# the first merges of SmolLM2's tokenizer and of the one that Granite and Llama 3 share, and the pair of newlines that
# joins a picture's last row to what follows
SMOLLM2_MERGES = "Ġ t|Ġ a|i n|h e|Ġ Ġ|r e|o n|e r|Ġt he|a t|Ġ s|Ġ o|e n|Ġ c|e s|Ġ w|n d|i t|o r|i s|a l|Ġ p|in g|Ċ Ċ"
LLAMA3_MERGES = "Ġ Ġ|ĠĠ ĠĠ|i n|Ġ t|e r|ĠĠ Ġ|o n|Ġ a|r e|a t|s t|e n|o r|Ġt h|Ċ Ċ|Ġ c|l e|Ġ s|i t|a n|a r|a l|Ġth e"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make_tokenizer(kind: str) -> Tokenizer:
    """The special tokens, their order, and the splitting into words of the released one; a fraction of its merges.

    Granite's own tokenizer.json was not at hand: its vocabulary begins like Llama 3's, so it is split like Llama 3's.
    """
    (first, last), llama3_like = _special_tokens(kind), kind in ("Granite", "Llama 3")
    pairs = (LLAMA3_MERGES if llama3_like else SMOLLM2_MERGES).split("|")
    ordinary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(pair.replace(" ", "") for pair in pairs)]
    vocabulary = {token: number for number, token in enumerate([*first, *ordinary])}
    merges = [(left, right) for left, right in map(str.split, pairs)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "Llama 3"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*first, *last]])
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated") if llama3_like else pre_tokenizers.Digits(True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not llama3_like)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "Llama 3":
        start = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
    return tokenizer


def _special_tokens(kind: str) -> tuple[list[str], list[str]]:
    """Special tokens that stand before and after the ordinary ones."""
    granite, smollm2 = _added_tokens(GRANITE), _added_tokens(SMOLVLM)
    added = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    match kind:
        case "Granite":  # the last one lies outside the model's vocabulary, in the released files too
            return [], [*granite, "<end_of_utterance>"]
        case "Llama 3":
            names = ["begin_of_text", "end_of_text", *(f"reserved_special_token_{i}" for i in range(4))]
            names += ["start_header_id", "end_header_id", "reserved_special_token_4", "eot_id"]
            names += [f"reserved_special_token_{i}" for i in range(5, 251)]
            return [], [*(f"<|{name}|>" for name in names), *added]
        case "SmolLM2, three added":
            return smollm2[:17], added
        case "SmolLM2, DocTags":  # SmolDocling's own list was not at hand; it has as many tokens as SmolVLM
            doctags = ["<loc_", *(token for token in granite if token not in smollm2 and not token.startswith("<|"))]
            free = [i for i, token in enumerate(smollm2) if token.startswith("<|reserved_special_token_")]
            for i, token in zip(free, doctags, strict=False):
                smollm2[i] = token
    return smollm2[:17], smollm2[17:]


def _added_tokens(released: str) -> list[str]:
    values = json.loads((RELEASED / released / "tokenizer_config.json").read_bytes())["added_tokens_decoder"]
    return [values[number]["content"] for number in sorted(values, key=int)]
