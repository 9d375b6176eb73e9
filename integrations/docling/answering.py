"""Questions about single pictures, several at once: what pages and pictures have in common."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL.Image import Image

from smolvlm_edge import SmolEdgeError, SmolVLM
from smolvlm_edge.integrations.docling._compat import VlmStopReason


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a question, in Docling's terms."""

    text: str
    stop_reason: VlmStopReason
    tokens: int
    seconds: float
    error: str | None = None


@cache
def opened(model: str | None, quant: str, threads: int | None, parallel: int) -> SmolVLM:
    """One model for all stages of a process that want the same."""
    return SmolVLM.load(model, quant=quant, threads=threads, parallel=parallel)


def ask_all(model: SmolVLM, questions: Sequence[tuple[Image, str, dict[str, Any]]], parallel: int) -> list[Told]:
    """The answers to pictures with their prompts and options, in their order; what fails says so in its place."""
    with ThreadPoolExecutor(parallel, "smol-edge docling") as threads:
        return list(threads.map(lambda question: _ask(model, *question), questions))


def _ask(model: SmolVLM, image: Image, prompt: str, options: dict[str, Any]) -> Told:
    start = time.perf_counter()
    try:
        answer = model.generate(image, prompt, **options)
    except SmolEdgeError as error:
        return Told("", VlmStopReason.INFERENCE_ERROR, 0, time.perf_counter() - start, str(error))
    cut = answer.finish_reason == "length"
    reason = VlmStopReason.LENGTH if cut else VlmStopReason.END_OF_SEQUENCE
    return Told(answer.text, reason, len(answer.token_ids), time.perf_counter() - start)
