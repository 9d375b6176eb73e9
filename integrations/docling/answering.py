"""Questions about single pictures, several at once: what pages and pictures have in common."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL.Image import Image

from smolvlm_edge import Chunk, SmolEdgeError, SmolVLM
from smolvlm_edge.integrations.docling._compat import VlmStopReason
from smolvlm_edge.integrations.loops import LoopDetector


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


def ask_all(
    model: SmolVLM, questions: Sequence[tuple[Image, str, dict[str, Any]]], parallel: int, *, stop_loops: bool
) -> list[Told]:
    """The answers to pictures with their prompts and options, in their order; what fails says so in its place."""
    with ThreadPoolExecutor(parallel, "smol-edge docling") as threads:
        return list(threads.map(lambda question: _ask(model, *question, stop_loops=stop_loops), questions))


def _ask(model: SmolVLM, image: Image, prompt: str, options: dict[str, Any], *, stop_loops: bool) -> Told:
    loops: Callable[[int], bool] = LoopDetector().push if stop_loops else lambda _: False
    chunks: list[Chunk] = []
    try:
        with closing(model.stream(image, prompt, **options)) as stream:
            looped = any(loops(chunk.token_id) for chunk in _kept(stream, chunks))
    except SmolEdgeError as error:
        return Told("", VlmStopReason.INFERENCE_ERROR, 0, 0.0, str(error))
    cut = looped or chunks[-1].finish_reason == "length"
    seconds = chunks[-1].timings.ttft_ms / 1000 + len(chunks) / (chunks[-1].timings.decode_tokens_per_s or len(chunks))
    reason = VlmStopReason.LENGTH if cut else VlmStopReason.END_OF_SEQUENCE
    return Told("".join(chunk.text for chunk in chunks), reason, len(chunks), seconds)


def _kept(stream: Iterator[Chunk], chunks: list[Chunk]) -> Iterator[Chunk]:
    for chunk in stream:
        chunks.append(chunk)
        yield chunk
