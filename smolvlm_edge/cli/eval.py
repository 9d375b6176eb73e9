"""`smol-edge eval`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from smolvlm_edge.bundle import MANIFEST, Bundle, sha256
from smolvlm_edge.cli.groups import ModelOptions, grouped
from smolvlm_edge.cli.lines import as_json_line
from smolvlm_edge.cli.options import DetailOption, MemoryOption, ParallelOption, counting_bar
from smolvlm_edge.errors import RequestError
from smolvlm_edge.evaluation import ask_all
from smolvlm_edge.evaluation.datasets import DATA_SETS
from smolvlm_edge.evaluation.drawn import DEFAULT_COUNT, DEFAULT_SEED, drawn_questions
from smolvlm_edge.evaluation.family import Prompts, family, plain
from smolvlm_edge.evaluation.questions import Metric
from smolvlm_edge.evaluation.results import header, open_results
from smolvlm_edge.evaluation.tsv import file_questions
from smolvlm_edge.generation.timings import peak_rss_bytes
from smolvlm_edge.graphs.choice import choose_engines
from smolvlm_edge.store import DEMO

LONGEST = 128
KIT_LONGEST = 2048
"""Tokens of a reply that VLMEvalKit lets the family's models have."""


@grouped
def evaluate(
    questions: Annotated[
        Path | None, typer.Argument(help="VLMEvalKit TSV.", show_default="drawn scenes with questions")
    ] = None,
    *,
    named: ModelOptions,
    metric: Annotated[
        Metric | None, typer.Option(help="How replies to the file are scored.", show_default="what fits its rows")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N questions.", show_default=f"all; {DEFAULT_COUNT} drawn")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which scenes are drawn.", show_default=str(DEFAULT_SEED))] = None,
    prompts: Annotated[
        Prompts,
        typer.Option(
            help="family: worded as SmolVLM's publishers do for their scores; the file's name says which set."
        ),
    ] = "plain",
    results: Annotated[Path | None, typer.Option(help="JSON lines to keep replies in, and to continue from.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest reply.", show_default=f"{LONGEST}; {KIT_LONGEST} for family")
    ] = None,
    memory: MemoryOption = "balanced",
    detail: DetailOption = "high",
    parallel: ParallelOption = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how often a model is right: on drawn scenes, or on a file of questions with answers.

    Example: smol-edge eval
    Example: smol-edge eval MMStar.tsv --model ./smolvlm-256m-int4 --prompts family --results mmstar.jsonl
    """
    max_tokens = max_tokens or (LONGEST if prompts == "plain" else KIT_LONGEST)
    if questions is None:
        if prompts != "plain":
            raise RequestError("--prompts goes with a file of questions, whose name says which data set it is")
        if metric is not None:
            raise RequestError("--metric goes with a file of questions: drawn scenes are scored to the letter")
        asked = drawn_questions(seed, limit, detail)
    else:
        if seed is not None:
            raise RequestError("--seed goes with drawn scenes: a file's questions are asked in its own order")
        asked = file_questions(questions, metric, limit, detail)
    folder = named.find()
    bundle = Bundle.open(folder)
    named = replace(named, engine=str(choose_engines(bundle, named.engine, named.threads)))
    dataset = questions.stem if questions else ""
    begin = header(
        sha256(folder / MANIFEST),
        named.engine,
        asked.fingerprint,
        metric or "default",
        detail,
        max_tokens,
        prompts,
        dataset if prompts == "family" or dataset in DATA_SETS else "",
    )
    with (
        open_results(results, begin) as kept,
        named.load(folder, memory, parallel) as vlm,
        counting_bar("question") as progress,
    ):
        task = progress.add_task("", total=asked.count)
        second = bundle.model.model_type == "smolvlm"
        wording = partial(plain, dataset) if prompts == "plain" else partial(family, dataset, second=second)
        report = ask_all(vlm, asked, kept, max_tokens, lambda: progress.advance(task), wording)
    if as_json:
        name = DEMO if named.model in {None, DEMO} else folder.resolve().name
        about = {"name": name, "quant": bundle.recipe["name"], "engine": named.engine}
        print(as_json_line({"model": about, **report.to_dict(), "peak_rss_bytes": peak_rss_bytes()}))
    else:
        Console(highlight=False, soft_wrap=True).print(report.table())
