"""What an answer of a given form costs per token: the mask, and following the answer; the model is not run.

Scores are random, so that an answer goes everywhere its schema lets it. Times are microseconds of one thread.

    python benchmarks/constraint_cost.py --model 256m-int4 [--schema FILE.json] [--answers 50]
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from smolvlm_edge import RequestError
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.constraints import OnLimit, read_constraint
from smolvlm_edge.constraints.guide import Guide
from smolvlm_edge.constraints.vocabulary import Vocabulary
from smolvlm_edge.conversation.prompt import PromptEncoder

INVOICE = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        "date": {"type": "string", "format": "date"},
        "customer": {"type": "string"},
        "paid": {"type": "boolean"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number", "minimum": 0}},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["number", "date", "customer", "paid", "items"],
    "additionalProperties": False,
}


def token_times(schema: object, vocabulary: Vocabulary, vocab_size: int, on_limit: OnLimit, seed: int) -> list[float]:
    """Microseconds of every token of one answer."""
    spent = 0.0

    @contextmanager
    def measure() -> Iterator[None]:
        nonlocal spent
        start = time.perf_counter()
        yield
        spent += time.perf_counter() - start

    constraint = read_constraint({"schema": schema})
    assert constraint is not None
    random, times = np.random.default_rng(seed), []
    guide = Guide(constraint, " ", vocabulary, lambda scores: int(scores.argmax()), 200, on_limit, measure)
    while len(times) < 200 and not guide.ended and not guide.cut:
        spent = 0.0
        token = guide(random.normal(size=vocab_size).astype(np.float32))
        times.append(spent * 1e6)
        if token in vocabulary.eos_token_ids:
            break
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a bundle's folder")
    parser.add_argument("--schema", type=Path, help="a JSON Schema; by default an invoice")
    parser.add_argument("--answers", type=int, default=50)
    options = parser.parse_args()
    bundle = Bundle.open(options.model)
    encoder, config = PromptEncoder(bundle.folder, bundle.model), bundle.model
    start = time.perf_counter()
    vocabulary = Vocabulary(encoder.tokenizer, config.text.vocab_size, config.eos_token_ids, encoder.hidden_token_ids)
    print(f"{config.text.vocab_size} tokens, taken over in {time.perf_counter() - start:.2f} s, once for a model\n")
    schema = json.loads(options.schema.read_text(encoding="utf-8")) if options.schema else INVOICE
    print("| on_limit | tokens | median µs | mean µs | 99 % µs |\n|---|---:|---:|---:|---:|")
    for on_limit in ("error", "complete"):
        times: list[float] = []
        for seed in range(options.answers):
            try:
                times += token_times(schema, vocabulary, config.text.vocab_size, on_limit, seed)
            except RequestError as error:
                parser.error(str(error))
        worst = statistics.quantiles(times, n=100)[98]
        figures = (statistics.median(times), statistics.fmean(times), worst)
        print(f"| {on_limit} | {len(times)} | {' | '.join(f'{figure:.0f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
