"""One answer by transformers, reported in the words of `smol-edge run --json`."""

import json
import sys
import time

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm_edge.timings import peak_rss_bytes


class FirstToken:
    """A streamer that only notes when the first token came."""

    def __init__(self) -> None:
        self.calls, self.time = 0, 0.0

    def put(self, _: object) -> None:
        """Called with the prompt first, then with every token."""
        self.calls += 1
        if self.calls == 2:
            self.time = time.perf_counter()

    def end(self) -> None:
        """Called after the last token."""


def main(checkpoint: str, dtype: str, picture: str, prompt: str, tokens: str, threads: str) -> None:
    """Load, answer, report."""
    torch.set_num_threads(int(threads))
    start = time.perf_counter()
    processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()
    loaded = time.perf_counter()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=text, images=[Image.open(picture).convert("RGB")], return_tensors="pt").to(model.dtype)
    first = FirstToken()
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=int(tokens), do_sample=False, streamer=first)
    done = time.perf_counter()
    prompt_tokens = inputs["input_ids"].shape[1]
    generated = output.shape[1] - prompt_tokens
    report = {
        "load_ms": (loaded - start) * 1000,
        "vision_ms": 0.0,
        "prefill_ms": 0.0,
        "ttft_ms": (first.time - loaded) * 1000,
        "decode_tokens_per_s": (generated - 1) / (done - first.time),
        "tiles": inputs["pixel_values"].shape[1],
        "prompt_tokens": prompt_tokens,
        "generated_tokens": generated,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
