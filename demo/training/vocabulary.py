"""The tokenizer and the configuration files of the demonstration model.

Byte-level BPE as in the family, but with merges of a kind of their own: every word that scenes use becomes one
token, by merges that start at the space before it (or at a capital), and nothing else merges. So a text that is
read out, `"HELLO"`, is always spelt: one token per letter, however the quotation goes on.
"""

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from smolvlm_edge.demo.scenes import MAKERS, scenes
from smolvlm_edge.demo.training.network import Size

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The family's."""
VIDEO = "You are provided the following series of four frames from a 0:00:00 [H:MM:SS] video.\n\n\nFrame from 00:00:"
"""What SmolVLM's processor writes around the frames of a video (processing_smolvlm.py)."""
SPACE, NEWLINE = "Ġ", "Ċ"  # how byte-level BPE writes them


def write(folder: Path, size: Size) -> None:
    """Write everything of a checkpoint but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(size.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in (*SPECIAL, *ADDED)}
    special = {"bos_token_id": ids["<|im_start|>"], "pad_token_id": ids["<|im_end|>"]}
    files = {
        "config.json": {
            "architectures": ["Idefics3ForConditionalGeneration"],
            "model_type": "idefics3",
            "image_token_id": ids["<image>"],
            "scale_factor": size.scale_factor,
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
            "vision_config": {
                "model_type": "idefics3_vision",
                "hidden_size": size.vision_width,
                "intermediate_size": size.vision_inner,
                "num_hidden_layers": size.vision_layers,
                "num_attention_heads": size.vision_heads,
                "image_size": size.tile,
                "patch_size": size.patch,
                "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-6,
            },
            "text_config": {
                "model_type": "llama",
                "vocab_size": size.vocabulary,
                "hidden_size": size.width,
                "intermediate_size": size.inner,
                "num_hidden_layers": size.layers,
                "num_attention_heads": size.heads,
                "num_key_value_heads": size.kv_heads,
                "head_dim": size.width // size.heads,
                "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-5,
                "rope_theta": size.rope_theta,
                "hidden_act": "silu",
                "tie_word_embeddings": True,
                "eos_token_id": ids["<|im_end|>"],
                **special,
            },
            **special,
        },
        "generation_config.json": {"eos_token_id": ids["<end_of_utterance>"], **special},
        "preprocessor_config.json": {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"longest_edge": 2 * size.tile},
            "resample": 1,
            "do_image_splitting": True,
            "max_image_size": {"longest_edge": size.tile},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_pad": True,
        },
        "processor_config.json": {"processor_class": "Idefics3Processor", "image_seq_len": size.image_seq_len},
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer",
            "processor_class": "Idefics3Processor",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "bos_token": "<|im_start|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def build_tokenizer(vocabulary: int) -> Tokenizer:
    """The family's special tokens, 256 bytes and as many words as there is room for, the frequent ones first."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), NEWLINE * 2]
    merges = [(NEWLINE, NEWLINE)]
    known = set(tokens)
    for word in _words():
        chain = [word[:end] for end in range(2, len(word) + 1)]
        new = [prefix for prefix in chain if prefix not in known]
        if len(tokens) + len(new) + len(ADDED) > vocabulary:
            break
        known.update(new)
        tokens += new
        merges += [(prefix[:-1], prefix[-1]) for prefix in new]
    merges.sort(
        key=lambda merge: not merge[0].startswith(SPACE)
    )  # from the space before a word rather than its capital
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*SPECIAL, *ADDED)])
    return tokenizer


def _words() -> list[str]:
    """Words with the space before them, and words with a capital, by how often scenes use them."""
    counts: Counter[str] = Counter()
    sources = islice(scenes(0, held_out=False, weights=dict.fromkeys(MAKERS, 1.0)), 3000)
    lines = [text for scene in sources for q in scene.questions for text in (q.text, f" {q.answer}")]
    for line in [*lines, *["User: Assistant:", "User", "Assistant", VIDEO] * 1000]:
        unquoted = re.sub(r'"[^"]*"', '"', line)
        for space, word in re.findall(r"( ?)([A-Za-z]+|[\"])", unquoted):
            if space:
                counts[SPACE + word] += 1
            elif len(word) > 1 and word[0].isupper() and word[1:].islower():
                counts[word] += 1
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
