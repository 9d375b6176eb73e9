"""`smol-edge chat`."""

import sys
from typing import Annotated

import typer

from smolvlm_edge.cli.options import (
    DEMO_NOTE,
    DetailOption,
    EngineOption,
    EngineSettingsOption,
    MemoryOption,
    ModelOption,
    OfflineOption,
    QuantOption,
    ThreadsOption,
    TrustOption,
    YesOption,
    find_model,
)
from smolvlm_edge.cli.session import Session
from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.conversation.request import check_request
from smolvlm_edge.generation.answer import DEFAULT_MAX_TOKENS, GenerateOptions
from smolvlm_edge.graphs.engines import AUTO, read_engine_options
from smolvlm_edge.model import SmolVLM


def chat(
    images: Annotated[
        list[str] | None, typer.Argument(show_default=False, help="Pictures and videos to begin with.")
    ] = None,
    model: ModelOption = None,
    quant: QuantOption = "int4",
    offline: OfflineOption = False,
    yes: YesOption = False,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = DEFAULT_MAX_TOKENS,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampled answers repeatable.")] = None,
    engine: EngineOption = AUTO,
    threads: ThreadsOption = None,
    engine_option: EngineSettingsOption = None,
    trust: TrustOption = False,
    memory: MemoryOption = "balanced",
    detail: DetailOption = "high",
) -> None:
    """Talk about pictures, question by question; piped in, every line is a question.

    Example: smol-edge chat examples/shapes.png
    Example: smol-edge chat --model smolvlm-256m --system "Answer in one sentence."
    """
    options: GenerateOptions = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "detail": detail,
    }
    pictures: list[Source] = list(images or [])
    check_request(pictures, "describe", options)
    if model is None:
        print(DEMO_NOTE, file=sys.stderr)
    settings = read_engine_options(engine_option or ())
    folder = find_model(model, quant, engine, offline=offline, yes=yes)
    with SmolVLM.load(
        folder, engine=engine, threads=threads, memory=memory, trust=trust, engine_options=settings
    ) as vlm:
        Session(vlm.chat(system, **options), pictures).run()
