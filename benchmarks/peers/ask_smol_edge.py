"""One answer by this project, and another one about the same pictures; see `protocol.py`.

`model` is {"folder": a bundle, "engine": as `--engine` takes it, "home": what SMOL_EDGE_HOME is to be}.
"""

import os
import time
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from protocol import Report, request

from smolvlm_edge import SmolVLM
from smolvlm_edge.generation.answer import Chunk

if TYPE_CHECKING:
    from smolvlm_edge.pictures.images import Detail

SECOND = "Which colours do you see?"


def main() -> None:
    """Load, answer, ask again, report."""
    asked = request()
    folder, engine = asked["model"]["folder"], asked["model"]["engine"]
    os.environ["SMOL_EDGE_HOME"] = asked["model"]["home"]
    engines = sorted({half.rpartition("=")[2] for half in engine.split(",")})
    start = time.perf_counter()
    with SmolVLM.load(folder, engine=engine, threads=asked["threads"], memory="low") as model:
        load_ms = (time.perf_counter() - start) * 1000
        # every peer goes on after the end of its turn
        model.bundle = replace(model.bundle, model=replace(model.bundle.model, eos_token_ids=frozenset()))
        chunks = answer(model, asked, asked["prompt"])
        timings = chunks[-1].timings
        again = answer(model, asked | {"tokens": 1}, SECOND)[-1].timings if asked["pictures"] else None
    Report(
        load_ms=load_ms,
        preprocess_ms=timings.preprocess_ms,
        vision_ms=timings.vision_ms,
        prefill_ms=timings.prefill_ms,
        ttft_ms=timings.ttft_ms,
        decode_tokens_per_s=timings.decode_tokens_per_s,
        second_ttft_ms=again and again.ttft_ms,
        tiles=timings.tiles,
        prompt_tokens=timings.prompt_tokens,
        generated_tokens=timings.generated_tokens,
        text="".join(chunk.text for chunk in chunks),
        versions={name: version(name) for name in ("smol-edge", *engines)},
    ).print()


def answer(model: SmolVLM, asked: dict[str, object], prompt: str) -> list[Chunk]:
    """All chunks."""
    detail: Detail = "high" if asked["split"] else "low"
    return list(model.stream(asked["pictures"], prompt, max_tokens=asked["tokens"], detail=detail))


if __name__ == "__main__":
    main()
