"""Answers of optimum-intel from a folder of `smol-edge export --layout optimum`, in an environment of its own.

    python tests/ask_optimum.py FOLDER < QUESTIONS > ANSWERS

A line of questions is [{"images": [PATH, ...], "prompt": TEXT, "split": BOOL, "max_tokens": N}, ...] in JSON; those are
answered together. A line of answers is [{"input_ids": [...], "token_ids": [...]}, ...], without padding.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

try:
    import torchvision  # noqa: F401 - the processor wants it
except RuntimeError:  # its operators are built for another torch than a CPU's; declared, it can be imported
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        OPERATORS.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from optimum.intel import OVModelForVisualCausalLM
from transformers import AutoProcessor

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def main(folder: Path) -> None:
    """Answer every line."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    model = OVModelForVisualCausalLM.from_pretrained(folder, ov_config=EXACT)
    for line in sys.stdin:
        questions = json.loads(line)
        inputs = processor(text=[prompt(processor, each) for each in questions], **pictures(processor, questions))
        output = model.generate(**inputs, max_new_tokens=questions[0]["max_tokens"], do_sample=False)
        asked, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        answers = [
            {"input_ids": ids[kept].tolist(), "token_ids": row[len(ids) :].tolist()}
            for ids, kept, row in zip(asked, mask, output, strict=True)
        ]
        print(json.dumps(answers), flush=True)


def prompt(processor: Any, question: dict[str, Any]) -> str:
    """The question as the chat template has it."""
    parts = [*({"type": "image"} for _ in question["images"]), {"type": "text", "text": question["prompt"]}]
    return processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)


def pictures(processor: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """What else the processor is to know."""
    options: dict[str, Any] = {"return_tensors": "pt", "padding": True}
    if any(each["images"] for each in questions):
        processor.image_processor.do_image_splitting = all(each["split"] for each in questions)
        options["images"] = [[Image.open(path) for path in each["images"]] for each in questions]
    return options


if __name__ == "__main__":
    main(Path(sys.argv[1]))
