"""Options that several commands take."""

from typing import Annotated

import typer

from smolvlm_edge.store import DEFAULT_VARIABLE

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Bundle made by `smol-edge export`, or 'demo'.", envvar=DEFAULT_VARIABLE, show_default="demo"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads of the engine.", show_default="available processors"),
]
NoSplitOption = Annotated[bool, typer.Option("--no-split", help="One tile per picture: faster, coarser.")]
