"""The options of an answer, which every command that answers takes alike, and what is said of one that was cut off."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from smolvlm_edge.cli.options import LongestEdgeOption
from smolvlm_edge.generation.answer import DEFAULT_MAX_TOKENS, Chunk, GenerateOptions
from smolvlm_edge.pictures.images import Detail

OPTIONS: dict[str, Any] = {
    "max_tokens": Annotated[int | None, typer.Option(help="Longest answer.", show_default=str(DEFAULT_MAX_TOKENS))],
    "temperature": Annotated[
        float | None, typer.Option(help="0 always takes the likeliest token.", show_default="the model's, else 0")
    ],
    "top_k": Annotated[int | None, typer.Option(help="Sample among the K likeliest tokens; 0 is all.")],
    "top_p": Annotated[
        float | None, typer.Option(help="Sample among the likeliest tokens that together reach this probability.")
    ],
    "min_p": Annotated[
        float | None, typer.Option(help="Sample among tokens with at least this share of the likeliest's probability.")
    ],
    "repetition_penalty": Annotated[
        float | None, typer.Option(help="Above 1, tokens that were there before are less likely.")
    ],
    "seed": Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")],
    "stop": Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be given more than once.")],
    "detail": Annotated[
        Detail | None,
        typer.Option(
            help="Tiles of a picture: low, one, soonest and coarsest; auto, what its pixels fill; high, the model's "
            "rules.",
            show_default="high",
        ),
    ],
    "longest_edge": LongestEdgeOption,
}
"""Options of `GenerateOptions` by their names there. What is not said stays with the model's own defaults."""


def takes_answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; its parameter `options` gets those that were said, as `GenerateOptions`."""
    signature = inspect.signature(command)
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    ours = [inspect.Parameter(name, keyword_only, default=None, annotation=kind) for name, kind in OPTIONS.items()]

    @wraps(command)
    def with_options(**values: Any) -> None:
        said = {name: value for name in OPTIONS if (value := values.pop(name)) not in (None, [])}
        command(**values, options=GenerateOptions(**said))  # type: ignore[typeddict-item]

    parameters = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    as_keywords = [parameter.replace(kind=keyword_only) for parameter in parameters]
    with_options.__signature__ = signature.replace(parameters=[*as_keywords, *ours])  # type: ignore[attr-defined]
    hints = {name: hint for name, hint in command.__annotations__.items() if name != "options"}
    with_options.__annotations__ = {**hints, **OPTIONS}
    return with_options


def say_if_cut_off(last: Chunk, options: GenerateOptions) -> None:
    """Tell on stderr if there was no room for the whole answer."""
    if last.finish_reason != "length":
        return
    tokens = last.timings.generated_tokens
    what = "was brought to an end" if options.get("on_limit") == "complete" else "was cut off"
    if tokens < options.get("max_tokens", DEFAULT_MAX_TOKENS):
        print(f"note: the answer {what} after {tokens} tokens: the model's context holds no more", file=sys.stderr)
    else:
        print(f"note: the answer {what} after {tokens} tokens: --max-tokens N allows more", file=sys.stderr)
