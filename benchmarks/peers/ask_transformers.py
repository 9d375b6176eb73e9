"""One answer by transformers, or by optimum-intel, whose model stands where transformers' would; see `protocol.py`.

`model` is {"folder": a checkpoint, "dtype": "float32" or "bfloat16"}, or {"folder": what optimum-cli exported}.
"""

import time
from importlib.metadata import version
from typing import Any

import torch
import transformers
from PIL import Image
from protocol import Report, Stopwatch, request
from transformers import AutoProcessor


class Times:
    """A streamer that notes when the first and the last token came."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def put(self, _: object) -> None:
        """Called with the prompt first, then with every token."""
        self.moments.append(time.perf_counter())

    def end(self) -> None:
        """Called after the last token."""


def open_model(watch: Stopwatch, folder: str, threads: int, dtype: str | None = None) -> Any:
    """The model, its vision half timed."""
    if dtype is None:
        from optimum.intel import OVModelForVisualCausalLM  # noqa: PLC0415 - only in optimum-intel's environment

        model = OVModelForVisualCausalLM.from_pretrained(folder, ov_config={"INFERENCE_NUM_THREADS": threads})
        model.get_vision_embeddings = watch.around("vision", model.get_vision_embeddings)
        return model
    torch.set_num_threads(threads)
    auto = transformers.AutoModelForImageTextToText
    model = auto.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    for part in (model.model.vision_model, model.model.connector):
        part.forward = watch.around("vision", part.forward)
    return model


def open_processor(folder: str) -> Any:
    """The one that resizes by Pillow, as the model was trained."""
    pillow = {"backend": "pil"} if int(version("transformers").split(".")[0]) >= 5 else {"use_fast": False}
    return AutoProcessor.from_pretrained(folder, **pillow)


def main() -> None:
    """Load, answer, report."""
    asked = request()
    watch, times = Stopwatch(), Times()
    with watch("load"):
        processor = open_processor(asked["model"]["folder"])
        model = open_model(watch, threads=asked["threads"], **asked["model"])

    start = time.perf_counter()
    with watch("preprocess"):
        pictures = [Image.open(picture).convert("RGB") for picture in asked["pictures"]]
        options = {"images": pictures, "do_image_splitting": asked["split"]} if pictures else {}
        inputs = processor(text=asked["rendered"], return_tensors="pt", **options)
        if dtype := asked["model"].get("dtype"):
            inputs = inputs.to(getattr(torch, dtype))
    with torch.inference_mode():
        limits = {"max_new_tokens": asked["tokens"], "min_new_tokens": asked["tokens"]}
        output = model.generate(**inputs, **limits, do_sample=False, streamer=times)
    _, first, *_, last = times.moments
    prompt_tokens = inputs["input_ids"].shape[1]
    generated = output[0, prompt_tokens:]
    ttft_ms = (first - start) * 1000
    vision_ms = watch.ms.get("vision", 0.0)
    Report(
        load_ms=watch.ms["load"],
        preprocess_ms=watch.ms["preprocess"],
        vision_ms=vision_ms,
        prefill_ms=ttft_ms - watch.ms["preprocess"] - vision_ms,
        ttft_ms=ttft_ms,
        decode_tokens_per_s=(len(generated) - 1) / (last - first),
        tiles=inputs["pixel_values"].shape[1] if pictures else 0,
        prompt_tokens=prompt_tokens,
        generated_tokens=len(generated),
        text=processor.decode(generated, skip_special_tokens=True),
        versions={name: version(name) for name in ("transformers", "torch", *OPENVINO[bool(dtype)])},
    ).print()


OPENVINO: dict[bool, tuple[str, ...]] = {True: (), False: ("optimum-intel", "openvino")}

if __name__ == "__main__":
    main()
