"""`smol-edge info`."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from smolvlm_edge.bundle import GRAPH_NAMES, SUFFIXES, Bundle, Target
from smolvlm_edge.cli.options import EngineOption, QuantOption, find_model
from smolvlm_edge.errors import EngineError
from smolvlm_edge.graphs.choice import Choice, choose_engines
from smolvlm_edge.graphs.engines import AUTO


def info(
    model: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a model that has one here.")],
    quant: QuantOption = "int4",
    engine: EngineOption = AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a bundle holds: graphs, sizes, widths, source, and which engines would run it.

    Example: smol-edge info ./smolvlm-256m-int4
    """
    bundle = Bundle.open(find_model(model, quant, engine, offline=True, yes=False))
    choice = _choice(bundle, engine)
    if as_json:
        about = {**asdict(bundle), "model": bundle.model.to_dict()}
        print(json.dumps({**about, "folder": str(bundle.folder), "engines": choice and choice.to_dict()}))
        return
    table = Table("graph", *(f"{target} MB" for target in bundle.targets), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for graph in GRAPH_NAMES:
        table.add_row(graph, *(_megabytes(bundle, graph, target) for target in bundle.targets))
    shape = bundle.model
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"source    {bundle.source}{f' @ {bundle.revision}' if bundle.revision else ''}", markup=False)
    if bundle.adapter is not None:
        console.print(f"adapter   {bundle.adapter.name} (sha256 {bundle.adapter.sha256})", markup=False)
    console.print(f"made by   {bundle.producer}", markup=False)
    console.print(
        f"model     {shape.model_type}: {shape.vision.num_hidden_layers} vision layers of {shape.vision.hidden_size}, "
        f"{shape.text.num_hidden_layers} text layers of {shape.text.hidden_size}, vocabulary {shape.text.vocab_size}, "
        f"context {shape.text.max_position_embeddings}",
        markup=False,
    )
    console.print(f"tile      {shape.vision.image_size} pixels -> {shape.image_seq_len} tokens", markup=False)
    console.print(f"recipe    {bundle.recipe['name']}", markup=False)
    for pattern, width in _rules(bundle.recipe["rules"]):
        console.print(f"          {pattern}: {width}", markup=False)
    console.print(f"folder    {bundle.folder}", markup=False)
    for half, pick in (("vision", choice.vision), ("decoder", choice.decoder)) if choice else ():
        console.print(f"{half:<9} on {pick.engine}: {pick.why}", markup=False)
    if bundle.lost is not None:
        lost = bundle.lost
        console.print(
            f"lost      KL {lost['kl']:.4f} nats to fp32, {100 * lost['top1']:.1f} % of top tokens kept, on text"
        )
    console.print(table)
    console.print(f"all files {sum(entry.size for entry in bundle.files.values()) / 1e6:.1f} MB")


def _choice(bundle: Bundle, engine: str) -> Choice | None:
    """None where the engine is not installed: what a bundle holds can be told all the same."""
    try:
        return choose_engines(bundle, engine)
    except EngineError as error:
        print(f"note: {error}", file=sys.stderr)
        return None


def _megabytes(bundle: Bundle, graph: str, target: Target) -> str:
    return f"{sum(bundle.files[graph + suffix].size for suffix in SUFFIXES[target]) / 1e6:.1f}"


def _rules(rules: Iterable[tuple[str, dict[str, object]]]) -> Iterator[tuple[str, str]]:
    """Patterns and what they mean; matrices that are named one by one are counted."""
    described = [("*" in pattern, pattern, _width(width)) for pattern, width in rules]
    named = Counter(width for is_pattern, _, width in described if not is_pattern)
    yield from ((f"{count} matrices", width) for width, count in named.items())
    yield from ((pattern, width) for is_pattern, pattern, width in described if is_pattern)


def _width(width: dict[str, object]) -> str:
    if width["kind"] == "float32":
        return "float32"
    if width["kind"] == "rows":
        return "int8 weights with a scale per row, int8 activations with a scale per token"
    if width["kind"] == "static":
        return "int8 weights with a scale per row, int8 activations with a scale known in advance"
    zero_point = "symmetric" if width["symmetric"] else "with zero points"
    return f"int{width['bits']} weights in blocks of {width['block_size']}, {zero_point}"
