"""`smol-edge chat`."""

import sys
from typing import Annotated

import typer

from smolvlm_edge.chat import OnFull
from smolvlm_edge.cli.answering import takes_answer_options
from smolvlm_edge.cli.options import (
    DEMO_NOTE,
    EngineOption,
    MemoryOption,
    ModelOption,
    OfflineOption,
    QuantOption,
    ThreadsOption,
    YesOption,
    find_model,
)
from smolvlm_edge.cli.session import Session
from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.conversation.request import check_request
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.graphs.engines import AUTO
from smolvlm_edge.model import SmolVLM


@takes_answer_options
def chat(
    images: Annotated[
        list[str] | None, typer.Argument(show_default=False, help="Pictures and videos to begin with.")
    ] = None,
    model: ModelOption = None,
    quant: QuantOption = "int4",
    offline: OfflineOption = False,
    yes: YesOption = False,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
    on_full: Annotated[
        OnFull,
        typer.Option(
            help="What to do once the conversation is longer than the model's context: drop its oldest turns, or stop."
        ),
    ] = "drop",
    engine: EngineOption = AUTO,
    threads: ThreadsOption = None,
    memory: MemoryOption = "balanced",
    *,
    options: GenerateOptions,
) -> None:
    """Talk about pictures, question by question; piped in, every line is a question.

    Example: smol-edge chat examples/shapes.png
    Example: smol-edge chat --model smolvlm-256m --system "Answer in one sentence."
    """
    pictures: list[Source] = list(images or [])
    check_request(pictures, "describe", options)
    if model is None:
        print(DEMO_NOTE, file=sys.stderr)
    folder = find_model(model, quant, engine, offline=offline, yes=yes)
    with SmolVLM.load(folder, engine=engine, threads=threads, memory=memory) as vlm:
        Session(vlm.chat(system, on_full=on_full, **options), pictures, options).run()
