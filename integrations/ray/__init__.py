"""Captions in Ray Data, Daft, Spark or whatever else cuts a table of pictures into batches for many workers.

    ds = ray.data.read_parquet("s3://photos").map_batches(
        Captioner,
        fn_constructor_kwargs={"model": "smolvlm-256m", "prompt": "Describe this image.", "column": "bytes"},
        compute=ray.data.ActorPoolStrategy(size=8), num_cpus=2, batch_size=16, memory=MEMORY_BYTES)

The class knows none of these programs: it takes a batch of columns and gives it back with more of them.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from smolvlm_edge import Answer, Request, SmolEdgeError, SmolVLM

MEMORY_BYTES = 400 << 20
"""What a worker takes with SmolVLM-256M in int4 (`smol-edge run --json` prints `peak_rss_bytes`), for `memory=`."""


class Captioner:
    """Answers one question about every picture of a batch; one object a worker, which loads its model once.

    Its arguments are pickled, the model is not. What goes wrong with a picture stands in the column `error` of its row,
    and the other rows have their captions.
    """

    def __init__(
        self,
        model: str | None = None,
        prompt: str = "Describe this image.",
        *,
        column: str = "image",
        threads: int | None = None,
        load: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Nothing is loaded before the first batch.

        Args:
            model: As `SmolVLM.load` takes it. Have it on every machine before (`smol-edge models pull`, then one run).
            prompt: What to do with each picture.
            column: Where the pictures are: paths, the bytes of files or uint8 arrays [height, width, 3].
            threads: Of the engine. By default what the worker has reserved: see `reserved_processors`.
            load: Further keywords of `SmolVLM.load`, such as `{"quant": "int8", "offline": True}`.
            **options: As `smolvlm_edge.GenerateOptions` has them, such as `max_tokens`.
        """
        self.prompt, self.column = prompt, column
        self._model_name, self._threads, self._load, self._options = model, threads, dict(load or {}), options
        self._model: SmolVLM | None = None

    def __call__(self, batch: Any) -> Any:
        """A batch with the columns that `captions` gives added to it.

        Args:
            batch: A mapping from columns to arrays or lists (Ray), or a pandas DataFrame (Spark's `mapInPandas`, Ray
                with `batch_format="pandas"`).
        """
        rows = list(self.captions(batch[self.column]))
        columns = {name: np.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()}
        return batch.assign(**columns) if hasattr(batch, "assign") else {**batch, **columns}

    def captions(self, pictures: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """A row for every picture, in their order; for programs whose batches are something else.

        Yields:
            `caption`, `finish_reason`, `error`, `prompt_tokens`, `generated_tokens`; texts are empty and counts 0 where
            there is nothing to say.
        """
        requests = (Request(images=picture, prompt=self.prompt) for picture in pictures)
        for answer in self._opened().generate_many(requests, **self._options):
            yield _row(answer)

    def __getstate__(self) -> dict[str, Any]:
        """Without the model: another process opens its own."""
        return {**self.__dict__, "_model": None}

    def _opened(self) -> SmolVLM:
        if self._model is None:
            self._model = SmolVLM.load(
                self._model_name, **{"threads": self._threads or reserved_processors(), **self._load}
            )
        return self._model


COLUMNS: dict[str, Any] = {
    "caption": object,
    "finish_reason": object,
    "error": object,
    "prompt_tokens": np.int64,
    "generated_tokens": np.int64,
}
"""What a batch gets, and the dtypes."""


def reserved_processors() -> int | None:
    """How many processors this worker has reserved; None where nobody says.

    A cluster's processors are numbers in a ledger: a worker with two of them sees all of its machine's, and so would
    its engine. Ray is asked itself; else OMP_NUM_THREADS counts, which Spark and most others set.
    """
    if (ray := sys.modules.get("ray")) and ray.is_initialized():
        return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    named = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(named)) if named.isdecimal() else None


def _row(answer: Answer | SmolEdgeError) -> dict[str, Any]:
    if isinstance(answer, Answer):
        counts = answer.timings
        return {
            "caption": answer.text,
            "finish_reason": answer.finish_reason,
            "error": "",
            "prompt_tokens": counts.prompt_tokens,
            "generated_tokens": counts.generated_tokens,
        }
    return {
        "caption": "",
        "finish_reason": "",
        "error": str(answer) or type(answer).__name__,
        "prompt_tokens": 0,
        "generated_tokens": 0,
    }
