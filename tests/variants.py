"""Tiny checkpoints that differ from tests/checkpoints/tiny-idefics3 in one thing each; make_variants.py asks
transformers about them."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pictures import CASES, Case
from tiny_weights import write_weights

BASE = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
NEW_TOKENS = 24


@dataclass(frozen=True)
class Variant:
    """What is different, and which question is asked."""

    text: dict[str, Any] = field(default_factory=dict)
    side: int = 8
    """Patches per side."""
    scale_factor: int = 4
    generation: dict[str, Any] = field(default_factory=dict)
    case: str = "long_text"
    seed: int = 5

    @property
    def question(self) -> Case:
        return CASES[self.case]


ROPES = {
    "llama3": Variant({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}),
    "llama3-parameters": Variant(
        {"rope_theta": None, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}}
    ),
    "linear": Variant({"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "linear-parameters": Variant(
        {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}}
    ),
    "dynamic": Variant({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "yarn": Variant({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}}),
    "yarn-parameters": Variant(
        {
            "rope_theta": None,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 20000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 16,
                "beta_slow": 2,
                "mscale": 1.0,
                "mscale_all_dim": 0.5,
            },
        }
    ),
}
HEADS = {f"head-dim-{size}": Variant({"head_dim": size}) for size in (2, 8, 20, 24, 40, 72)}
HEADS["head-dim-null"] = Variant({"head_dim": None})
POSITIONS = {
    f"{side}-patches": Variant(side=side, scale_factor=factor, case="unsplit")
    for side, factor in ((19, 19), (25, 5), (41, 41), (50, 10))
}
GENERATIONS = {
    name: Variant(generation=generation, case="text")
    for name, generation in {
        "greedy": {},
        "greedy-with-temperature": {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
        "repetition-penalty": {"repetition_penalty": 1.3},
        "repetition-reward": {"repetition_penalty": 0.7},
        "no-repeated-pairs": {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2},
        "no-repeated-triples": {"repetition_penalty": 0.7, "no_repeat_ngram_size": 3},
        "no-repeated-token": {"no_repeat_ngram_size": 1},
        "suppressed": {"suppress_tokens": [134, 9]},
        "begin-suppressed": {"begin_suppress_tokens": list(range(60, 359))},
        "bad-words": {"bad_words_ids": [[358], [254], [174, 134], [353, 283, 124]]},
        "sampled": {"do_sample": True, "temperature": 0.7, "top_k": 1},
        "sequence-bias": {"sequence_bias": [[[134], 2.0], [[174, 9], 30.0], [[9, 254], 30.0], [[254], -8.0]]},
        "sequence-bias-with-penalty": {"sequence_bias": [[[60], 6.0], [[60, 61], 30.0]], "repetition_penalty": 1.3},
        "end": {"eos_token_id": 254},
        "end-after-new-tokens": {"eos_token_id": 254, "min_new_tokens": 12},
        "end-after-length": {"eos_token_id": 9, "min_length": 51},
        "end-after-new-tokens-whatever-length": {"eos_token_id": 9, "min_new_tokens": 3, "min_length": 500},
        "decaying-length": {"eos_token_id": [2, 88], "exponential_decay_length_penalty": [2, 1.6]},
        "stop-string": {"stop_strings": " a"},
        "stop-string-that-ends-inside-a-token": {"stop_strings": ["fd", "zebra"]},
        "stop-string-of-several-tokens": {"stop_strings": ["never", "dy\x17,"]},
        "sampled-typically": {"do_sample": True, "top_k": 2, "typical_p": 0.0001},
        "sampled-by-epsilon": {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.99},
        "sampled-by-nucleus": {"do_sample": True, "top_p": 0.0001},
        "all": {
            "repetition_penalty": 0.8,
            "no_repeat_ngram_size": 2,
            "bad_words_ids": [[254], [174, 134]],
            "suppress_tokens": [9],
            "begin_suppress_tokens": [298],
            "max_new_tokens": 17,
        },
    }.items()
}
VARIANTS = {**ROPES, **HEADS, **POSITIONS, **GENERATIONS}


def write_variant(folder: Path, variant: Variant) -> Path:
    """Fill a folder with a variant's checkpoint."""
    folder.mkdir(parents=True)
    for file in BASE.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    config = _change(folder / "config.json", scale_factor=variant.scale_factor)
    patch = config["vision_config"]["patch_size"]
    size = variant.side * patch
    text = config["text_config"] | variant.text
    config = _change(
        folder / "config.json",
        text_config={key: value for key, value in text.items() if value is not None or key == "head_dim"},
        vision_config=config["vision_config"] | {"image_size": size},
    )
    _change(
        folder / "preprocessor_config.json",
        size={"longest_edge": 4 * size},
        max_image_size={"longest_edge": size},
    )
    _change(folder / "processor_config.json", image_seq_len=(variant.side // variant.scale_factor) ** 2)
    _change(folder / "generation_config.json", **variant.generation)
    if config["text_config"]["head_dim"] is None:
        del config["text_config"]["head_dim"]
    write_weights(folder, config, variant.seed, np.float32, shards=1)
    return folder


def _change(path: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(values), encoding="utf-8")
    return values
