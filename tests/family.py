"""Tiny checkpoints of every model of the family: the released configuration with smaller numbers, seeded weights.

`write_checkpoint` needs neither torch nor transformers. Nothing of it is committed: tests make the folders anew, and
make_family.py made the goldens from the same ones. Configuration files in tests/released are the publishers' own;
where a model's files were not at hand, `changes` says what is known of it, on top of its closest sibling's.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from pictures import Case
from tiny_tokenizers import GRANITE, RELEASED, SMOLVLM, make_tokenizer
from tiny_weights import patches_per_side, write_weights
from tokenizers import Tokenizer

CASES = {
    "text": Case("What is the capital of France?"),
    "one_picture": Case("Describe this image.", ((300, 200),)),
    "two_pictures": Case("What changed between these 2 pictures?", ((120, 170), (400, 90))),
    "unsplit": Case("What is this?", ((97, 143),), split=False),
}
DOCTAGS = (
    "<doctag><section_header_level_1><loc_12><loc_7>1 Fog</section_header_level_1><otsl><fcel>a<nl></otsl></doctag>"
)

SMOLVLM2 = "smolvlm2-256m-video-instruct"  # a folder in tests/released, as SMOLVLM and GRANITE


@dataclass(frozen=True)
class Member:
    """One model of the family. In the changes to its configuration, None takes a key out and a token is an id."""

    seed: int
    """Chosen so that greedy answers are no close call and not monotonous (make_family.py checks both), that a base
    model's begins with a space, and that some answer in DocTags ends before the longest."""
    released: str
    """The folder of configuration files that it starts from."""
    tokenizer: str
    """Which one of `make_tokenizer`."""
    text: dict[str, Any]
    vision: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    """Changes to the top of config.json."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to other files."""
    is_base: bool = False
    """Whether it has no chat template."""
    shards: int = 1


# -- sizes: as small as keeps what is special about the shape -----------------------------------------------------


def _tower(size: tuple[int, int], image_size: int, patch_size: int, **more: Any) -> dict[str, Any]:
    hidden_size, heads = size
    sizes = {
        "hidden_size": hidden_size,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    return {**sizes, **more}


def _decoder(size: tuple[int, int, int], heads: int, key_value_heads: int, **more: Any) -> dict[str, Any]:
    hidden_size, intermediate_size, layers = size
    sizes = {"hidden_size": hidden_size, "intermediate_size": intermediate_size, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": heads, "num_key_value_heads": key_value_heads, "head_dim": 16, **more}


TOWER_512 = _tower((32, 2), 64, 8)
"""8 patches a side (of 32), folded 4 × 4. SmolVLM2's files leave intermediate_size and num_hidden_layers to the class
default, 3072 and 12, and so does this."""
TOWER_512_WHOLE = TOWER_512 | {"intermediate_size": 64, "num_hidden_layers": 2}
TOWER_384 = _tower((48, 3), 48, 5, intermediate_size=100, num_hidden_layers=3)
"""9 patches a side (of 27) and 3 pixels left over (of 6), folded 3 × 3."""
TOWER_364 = TOWER_384 | {"image_size": 42, "patch_size": 7}
"""6 patches a side (of 26), folded 2 × 2."""
DECODER_256M = _decoder((48, 128, 2), 3, 1)
DECODER_500M = _decoder((96, 256, 2), 6, 2)
DECODER_2B = _decoder((64, 160, 3), 4, 4, pixel_shuffle_factor=3)
DECODER_8B = _decoder((128, 320, 2), 8, 2, pixel_shuffle_factor=2) | {"head_dim": None}

# -- the family ---------------------------------------------------------------------------------------------------

SMOLVLM_256M: dict[str, Any] = {
    "released": SMOLVLM,
    "tokenizer": "SmolLM2",
    "text": DECODER_256M,
    "vision": TOWER_512_WHOLE,
}
SMOLVLM_500M: dict[str, Any] = SMOLVLM_256M | {
    "text": DECODER_500M | {"initializer_range": 0.02},
    "vision": TOWER_512_WHOLE | {"use_base_siglip": False},
}
# no file at hand but those of its processor; the numbers are those that ports of the model quote
SMOLVLM_2B: dict[str, Any] = SMOLVLM_256M | {
    "tokenizer": "SmolLM2, three added",
    "text": DECODER_2B | {"rope_theta": 273768.0, "max_position_embeddings": 16384},
    "vision": TOWER_384,
    "config": {"scale_factor": 3},
}
# no file at hand: what transformers' Idefics3Config has as defaults was made for it, and Llama 3's values are public
LLAMA3_TEXT = {
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "bos_token_id": "<|begin_of_text|>",
    "eos_token_id": "<|end_of_text|>",
    "pad_token_id": "<|reserved_special_token_0|>",
}
LLAMA3_FILES = {
    "generation_config.json": {"bos_token_id": "<|begin_of_text|>", "pad_token_id": "<|reserved_special_token_0|>"},
    "tokenizer_config.json": {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|reserved_special_token_0|>",
        "unk_token": None,
        "tokenizer_class": "PreTrainedTokenizerFast",
    },
}

FAMILY = {
    "SmolVLM-256M-Base": Member(387, is_base=True, **SMOLVLM_256M),
    "SmolVLM-256M-Instruct": Member(3, **SMOLVLM_256M),
    "SmolVLM-500M-Base": Member(215, is_base=True, **SMOLVLM_500M),
    "SmolVLM-500M-Instruct": Member(1, **SMOLVLM_500M),
    "SmolVLM-Base": Member(124, is_base=True, **SMOLVLM_2B),
    "SmolVLM-Synthetic": Member(204, **SMOLVLM_2B),
    "SmolVLM-Instruct": Member(11, **SMOLVLM_2B),
    "SmolVLM2-256M-Video-Instruct": Member(1, SMOLVLM2, "SmolLM2", DECODER_256M, TOWER_512),
    "SmolVLM2-500M-Video-Instruct": Member(
        12,
        SMOLVLM2,
        "SmolLM2",
        text=DECODER_500M | {"initializer_range": None},
        vision=TOWER_512 | {"use_base_siglip": False},
    ),
    "SmolVLM2-2.2B-Instruct": Member(
        1,
        SMOLVLM2,
        "SmolLM2",
        text=DECODER_2B | {"rope_theta": 130000.0},
        vision=TOWER_384,
        config={"scale_factor": 3},
        shards=2,
    ),
    "SmolDocling-256M-preview": Member(37, SMOLVLM, "SmolLM2, DocTags", DECODER_256M, TOWER_512_WHOLE),
    "granite-docling-258M": Member(2, GRANITE, "Granite", DECODER_256M, TOWER_512_WHOLE),
    "Idefics3-8B-Llama3": Member(
        1,
        SMOLVLM,
        "Llama 3",
        text=DECODER_8B | LLAMA3_TEXT,
        vision=TOWER_364,
        config={"scale_factor": 2},
        files=LLAMA3_FILES,
        shards=4,
    ),
}

SAVED_AGAIN = ("SmolVLM-256M-Instruct", "SmolVLM2-2.2B-Instruct", "granite-docling-258M")
"""Members that are also tested with the configuration files that transformers 5 writes."""


def write_checkpoint(folder: Path, name: str) -> Path:
    """Fill a folder as `hf download` would."""
    member, tokenizer = FAMILY[name], make_tokenizer(FAMILY[name].tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = _released_files(member)
    config = {**member.config, "text_config": member.text, "vision_config": member.vision}
    for file, changes in {"config.json": config, **member.files}.items():
        _change(files[file], changes)
    numbers = _smaller_numbers(member, tokenizer)
    files = {file: _translated(values, numbers) for file, values in files.items()}
    scale_factor = files["config.json"]["scale_factor"]
    files["processor_config.json"]["image_seq_len"] = (patches_per_side(member.vision) // scale_factor) ** 2
    files["tokenizer_config.json"]["added_tokens_decoder"] = {
        str(number): {"content": token.content, "normalized": token.normalized, "special": token.special}
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if number < files["config.json"]["vocab_size"]
    }
    for file, values in files.items():
        (folder / file).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if member.released == GRANITE:
        (folder / "chat_template.jinja").write_bytes((RELEASED / GRANITE / "chat_template.jinja").read_bytes())
    number_format = np.float32 if member.released == SMOLVLM2 else ml_dtypes.bfloat16
    write_weights(folder, files["config.json"], member.seed, number_format, member.shards)
    return folder


# -- configuration ------------------------------------------------------------------------------------------------


def _released_files(member: Member) -> dict[str, dict[str, Any]]:
    """The configuration files by name; the tokenizer's are shared by all that have SmolLM2's."""
    folders = [RELEASED / SMOLVLM, RELEASED / member.released] if member.released != GRANITE else [RELEASED / GRANITE]
    files = {file.name: json.loads(file.read_bytes()) for folder in folders for file in sorted(folder.glob("*.json"))}
    tokenizer_config = files["tokenizer_config.json"]
    if member.released == SMOLVLM2:
        roles = {key: value for key, value in files["special_tokens_map.json"].items() if isinstance(value, str)}
        tokenizer_config |= roles | {"processor_class": "SmolVLMProcessor"}
    if member.tokenizer == "Llama 3":  # the same conversation with another start
        del files["special_tokens_map.json"]
        for file in ("tokenizer_config.json", "chat_template.json"):
            files[file]["chat_template"] = files[file]["chat_template"].replace("<|im_start|>", "<|begin_of_text|>")
    if member.is_base:
        del files["chat_template.json"], tokenizer_config["chat_template"]
    return files


def _change(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        elif isinstance(value, dict):
            _change(values[key], value)
        else:
            values[key] = value


def _smaller_numbers(member: Member, tokenizer: Tokenizer) -> dict[int | str, int]:
    """What the released token ids, vocabulary and picture sizes become; a token by its text becomes its id."""
    released = json.loads(
        (RELEASED / member.released.replace(SMOLVLM2, SMOLVLM) / "tokenizer_config.json").read_bytes()
    )
    tokens = {int(number): token["content"] for number, token in released["added_tokens_decoder"].items()}
    vocabulary = tokenizer.get_vocab()
    numbers: dict[int | str, int] = {old: vocabulary[token] for old, token in tokens.items() if token in vocabulary}
    size, tile = len(vocabulary) - (member.tokenizer == "Granite"), member.vision["image_size"]
    return numbers | vocabulary | {max(tokens) + 1: size, 512: tile, 2048: 4 * tile}


def _translated(values: dict[str, Any], numbers: dict[int | str, int]) -> dict[str, Any]:
    translated = {}
    for key, value in values.items():
        if isinstance(value, dict):
            translated[key] = _translated(value, numbers)
        elif key.endswith("token_id") or key in ("vocab_size", "longest_edge"):
            translated[key] = numbers.get(value, value)
        else:
            translated[key] = value
    return translated
