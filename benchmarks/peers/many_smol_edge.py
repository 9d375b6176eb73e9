"""Many callers at once on this project; see `callers.py` for the request and the report.

`model` is {"folder": a bundle}.
"""

import time

from callers import Asked, report, together
from protocol import request

from smolvlm_edge import SmolVLM
from smolvlm_edge.generation.timings import peak_rss_bytes

asked = Asked(**request())
start = time.perf_counter()
model = SmolVLM.load(asked.model["folder"], threads=asked.threads, parallel=asked.parallel)
load_s = time.perf_counter() - start
ends = list(model.bundle.model.eos_token_ids)  # everybody is to write as many tokens


def ask(number: int) -> list[float]:
    """When one caller got each token."""
    pictures = [asked.pictures[number]] if asked.pictures else []
    options = {"max_tokens": asked.tokens, "detail": asked.detail, "suppress_tokens": ends}
    return [time.perf_counter() for _ in model.stream(pictures, f"{number}. {asked.prompt}", **options)]


ask(0)  # opens every graph
report(together(ask, asked.callers), load_s, peak_rss_bytes())
