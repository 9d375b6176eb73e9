"""`smol-edge chat`."""

from typing import Annotated

import typer

from smolvlm_edge.chat import OnFull
from smolvlm_edge.cli.groups import ModelOptions, SamplingOptions, grouped
from smolvlm_edge.cli.options import DetailOption, MemoryOption
from smolvlm_edge.cli.session import Session
from smolvlm_edge.conversation.messages import Source
from smolvlm_edge.conversation.request import check_request
from smolvlm_edge.generation.answer import GenerateOptions


@grouped
def chat(
    images: Annotated[
        list[str] | None, typer.Argument(show_default=False, help="Pictures and videos to begin with.")
    ] = None,
    *,
    named: ModelOptions,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
    on_full: Annotated[
        OnFull,
        typer.Option(
            help="What to do once the conversation is longer than the model's context: drop its oldest turns, or stop."
        ),
    ] = "drop",
    sampling: SamplingOptions,
    memory: MemoryOption = "balanced",
    detail: DetailOption = "high",
) -> None:
    """Talk about pictures, question by question; piped in, every line is a question.

    Example: smol-edge chat examples/shapes.png
    Example: smol-edge chat --model smolvlm-256m --system "Answer in one sentence."
    """
    options: GenerateOptions = {**sampling.to_generate(), "detail": detail}
    pictures: list[Source] = list(images or [])
    check_request(pictures, "describe", options)
    named.tell()
    with named.load(named.find(), memory) as vlm:
        Session(vlm.chat(system, on_full=on_full, **options), pictures, options).run()
