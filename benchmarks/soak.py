"""32 threads ask 50 mixed questions each of one model: no deadlock, no wrong answer, flat memory.

    python benchmarks/soak.py                                 # a tiny model in fp32; a few minutes
    python benchmarks/soak.py --bundle 256m-fp32 --threads 8 --questions 10

Questions are read to the end, closed, cancelled, given too little time, of a form (a regular expression), about a
picture that is none, or read slowly. Every token is compared with what a model gives that answers one at a time, which
in fp32 is the same. Exits with 1 if one differs, or memory grows by more than the bound between the halves.
"""

import argparse
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leaks import PICTURES, TINY, resident_mb

from smolvlm_edge import ImageError, SmolVLM, StoppedError
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES

PROMPTS = ("What is this?", "Tell me a story.", "Once upon a time there was a picture. " * 8)
ENDS = ("read", "read", "close", "cancel", "timeout", "slow", "bad picture")
BOUND_MB = 40.0


class Soak:
    """Many threads on one model, and what it should say."""

    def __init__(self, bundle: Path, parallel: int) -> None:
        self.model = SmolVLM.load(bundle, threads=1, parallel=parallel)
        self.requests: list[dict[str, Any]] = [
            {"images": PICTURES[number : number + count], "prompt": prompt, "max_tokens": 24, "detail": "low"}
            | ({"regex": "[a-z ]{1,12}"} if number % 2 else {})
            for (number, count), prompt in product(enumerate((0, 1, 2, 1, 0, 1)), PROMPTS)
        ]
        with SmolVLM.load(bundle, threads=1) as alone:
            self.expected = [alone.generate(**request).token_ids for request in self.requests]
        self.wrong: list[str] = []

    def one(self, chance: random.Random) -> None:
        """A question, and one of its ends."""
        number, end = chance.randrange(len(self.requests)), chance.choice(ENDS)
        request, cancel, read = self.requests[number], threading.Event(), []
        if end == "bad picture":
            request = request | {"images": [*request["images"], b"none"]}
        if end == "timeout":
            request = request | {"timeout": 1e-3}
        with suppress(StoppedError, ImageError), closing(self.model.stream(**request, cancel=cancel)) as stream:
            for chunk in stream:
                read.append(chunk.token_id)
                if end == "close" and len(read) == 3:
                    break
                if end == "cancel" and len(read) == 3:
                    cancel.set()
                if end == "slow":
                    time.sleep(0.01)
        expected = self.expected[number]
        whole = end in {"read", "slow"}
        if tuple(read) != (expected if whole else expected[: len(read)]) or (end == "bad picture" and read):
            self.wrong.append(f"question {number}, {end}: {read} instead of {expected}")

    def run(self, threads: int, questions: int, seed: int) -> None:
        """So many questions by each of so many threads."""

        def ask(number: int) -> None:
            chance = random.Random(seed * 1000 + number)  # noqa: S311 - no secret
            for _ in range(questions):
                self.one(chance)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask, range(threads)))


def main() -> None:
    """Two halves, and what memory did between them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--questions", type=int, default=50)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        bundle = options.bundle or export_checkpoint(TINY, Path(folder) / "tiny", RECIPES["fp32"], calibration=None)
        soak = Soak(bundle, options.parallel)
        start, resident = time.perf_counter(), []
        for half in range(2):
            soak.run(options.threads, options.questions // 2, half)
            resident.append(resident_mb())
        seconds = time.perf_counter() - start
    grown = resident[1] - resident[0]
    asked = options.threads * (options.questions // 2) * 2
    print(f"{asked} questions in {seconds:.0f} s, {len(soak.wrong)} wrong, {grown:+.1f} MB in the second half")
    print("\n".join(soak.wrong[:10]), end="")
    sys.exit(bool(soak.wrong) or grown > BOUND_MB)


if __name__ == "__main__":
    main()
