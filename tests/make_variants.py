"""Make tests/goldens/variants.npz: what transformers answers with the checkpoints of variants.py.

    pip install -e '.[parity]'
    python tests/make_variants.py [NAME ...]

With names, the others stay as they are: patch positions are torch's on a processor with AVX2. It imports nothing of
smol-edge.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from make_family import encode
from make_goldens import load_processor, versions
from transformers import AutoModelForImageTextToText
from variants import NEW_TOKENS, VARIANTS, Variant, write_variant

GOLDENS = Path(__file__).parent / "goldens" / "variants.npz"
MIN_MARGIN = 1e-3  # between the two likeliest tokens; ten times what float32 kernels may differ


def main() -> None:
    """Write the goldens of all variants, or of those that are named."""
    torch.set_grad_enabled(False)
    names = sys.argv[1:]
    goldens: dict[str, Any] = dict(np.load(GOLDENS)) if names else {}
    goldens["versions"] = np.array(versions())
    for name in names or VARIANTS:
        variant = VARIANTS[name]
        with TemporaryDirectory() as folder:
            golden = answer(write_variant(Path(folder) / name, variant), variant)
        print(name, golden["token_ids"], round(golden.pop("margin"), 4))
        goldens |= {f"{name}/{key}": np.array(value) for key, value in golden.items()}
    np.savez_compressed(GOLDENS, **goldens)


def answer(folder: Path, variant: Variant) -> dict[str, Any]:
    """Logits of the prompt's last position, and the answer as generation_config.json wishes it."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor = load_processor(folder)
    inputs = encode(processor, variant.question)
    length = {} if "max_new_tokens" in variant.generation else {"max_new_tokens": NEW_TOKENS}
    output = model.generate(
        **inputs,
        **length,
        tokenizer=processor.tokenizer,  # for stop_strings
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    token_ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    scores = torch.cat(output.scores)
    best, second = scores.topk(2).values.T
    margin = float((best - second).min())
    assert margin > MIN_MARGIN, f"{folder.name}: the likeliest token is a close call: choose another seed"
    end = model.config.text_config.eos_token_id  # smol-edge ends at it, generate() need not
    named = variant.generation.get("eos_token_id", ())
    assert end not in token_ids or end in (named if isinstance(named, list) else [named]), (
        f"{folder.name}: the text model's end token in the answer: choose another seed"
    )
    return {"logits": output.logits[0][0].numpy(), "token_ids": token_ids, "margin": margin}


if __name__ == "__main__":
    main()
