"""Make tests/goldens/family: what transformers answers with a tiny checkpoint of every model of the family.

    pip install -e '.[parity]'
    python tests/make_family.py [NAME ...]

The checkpoints are those that tests make with family.py; this script imports nothing of smol-edge. The same versions
of torch and transformers write the same files again.
"""

import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from family import CASES, DOCTAGS, FAMILY, SAVED_AGAIN, write_checkpoint
from make_goldens import load_processor, versions
from pictures import Case
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Idefics3Processor

GOLDENS = Path(__file__).parent / "goldens" / "family"
NEW_TOKENS = 24
MIN_DISTINCT_TOKENS = 6  # an answer of one repeated token would hide mistakes
MIN_MARGIN = 1e-2  # between the two likeliest tokens; a hundred times what float32 kernels may differ


def main() -> None:
    """Write the goldens of the members that are named, or of all."""
    torch.set_grad_enabled(False)
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or FAMILY:
        with TemporaryDirectory() as folder:
            goldens = make_goldens(write_checkpoint(Path(folder) / name, name))
            if name in SAVED_AGAIN:
                save_again(Path(folder) / name, GOLDENS / "saved-by-transformers-5" / name)
        np.savez_compressed(GOLDENS / f"{name}.npz", **goldens)
        print(f"{name}: {(GOLDENS / f'{name}.npz').stat().st_size:,} bytes")


def save_again(folder: Path, out: Path) -> None:
    """The configuration files that transformers writes after it has read a checkpoint."""
    AutoConfig.from_pretrained(folder).save_pretrained(out)
    GenerationConfig.from_pretrained(folder).save_pretrained(out)
    processor = load_processor(folder)
    if isinstance(processor, Idefics3Processor):  # SmolVLM's cannot be saved without its video half
        processor.chat_template = processor.tokenizer.chat_template
        processor.save_pretrained(out)
        (out / "tokenizer.json").unlink()  # 35 kB that say what the checkpoint's own says


def make_goldens(folder: Path) -> dict[str, Any]:
    """What transformers makes of every case, by `case/quantity`."""
    model, loading = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    model.eval()
    processor = load_processor(folder)
    goldens: dict[str, Any] = {"versions": np.array(versions())}
    for case_name, case in CASES.items():
        for key, value in answer(model, processor, case).items():
            goldens[f"{case_name}/{key}"] = np.array(value)
    ids = processor.tokenizer.encode(DOCTAGS, add_special_tokens=False)
    goldens |= {"doctags/token_ids": np.array(ids), "doctags/text": np.array(text_of(processor.tokenizer, ids))}
    return goldens


def answer(model: Any, processor: Any, case: Case) -> dict[str, Any]:
    """Pixels, prompt, logits and greedy answer of one case."""
    inputs = encode(processor, case)
    golden: dict[str, Any] = {"input_ids": inputs["input_ids"][0].numpy()}
    if case.sizes:
        pixel_values = inputs["pixel_values"][0].numpy()
        golden |= {"tiles": len(pixel_values), "pixels": sha256(pixel_values.astype("<f4").tobytes()).hexdigest()}
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True
    )
    logits, token_ids = torch.cat(output.logits), output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    best, second = logits.topk(2).values.T
    assert (best - second).min() > MIN_MARGIN, "the likeliest token is a close call: choose another seed"
    assert len(set(token_ids)) >= min(MIN_DISTINCT_TOKENS, len(token_ids)), "a monotonous answer: choose another seed"
    text_end = model.config.text_config.eos_token_id  # smol-edge ends at it, generate() need not
    assert text_end not in token_ids[:-1], "the text model's end token in the answer: choose another seed"
    assert model.config.image_token_id not in token_ids, "an image token in the answer: choose another seed"
    return {
        **golden,
        "logits": logits[0].numpy(),
        "token_ids": token_ids,
        "text": text_of(processor.tokenizer, token_ids),
    }


def encode(processor: Any, case: Case) -> Any:
    """A conversation by the chat template; a base model gets its pictures and the text as they stand."""
    pictures, tokenizer = case.pictures(), processor.tokenizer
    if tokenizer.chat_template is None:
        text = "<image>" * len(pictures) + case.prompt
    else:
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": case.prompt}]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    # as processor.apply_chat_template(tokenize=True) does: no second start token (processing_utils.py)
    begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return processor(
        text=text,
        images=[pictures] if pictures else None,
        do_image_splitting=case.split,
        add_special_tokens=not begun,
        return_tensors="pt",
    )


def text_of(tokenizer: Any, token_ids: list[int]) -> str:
    """An answer's text, as users of the model decode it: with DocTags, where there are any, and without the end."""
    if "<otsl>" not in tokenizer.get_vocab():
        return tokenizer.decode(token_ids, skip_special_tokens=True)
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return tokenizer.decode([token for token in token_ids if token not in ends], skip_special_tokens=False)


if __name__ == "__main__":
    main()
