"""How many answers at once, and why."""

from dataclasses import dataclass
from typing import Literal

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.errors import RequestError
from smolvlm_edge.generation.network import Memory
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.engines import EngineName
from smolvlm_edge.machine import memory_bytes
from smolvlm_edge.values import is_whole

Parallel = int | Literal["auto"]
MOST = 256
AUTO_MOST = 16
"""What `auto` comes to at most: from there on, twice as many gain little."""
PER_CORE = 4
"""Answers for each processor: a run for twice as many takes nearly twice as long where one processor computes it."""
TYPICAL_POSITIONS = 1536
"""A picture in full detail, a question, and an answer of the default length."""


@dataclass(frozen=True, slots=True)
class Width:
    """How many answers a model gives at once."""

    count: int
    budget: int | None
    """Positions of the key/value cache that they may take together; None for any number."""
    why: str


ONE = Width(1, None, "one at a time, unless load or --parallel says otherwise")


def bytes_per_position(text: TextConfig) -> int:
    """Keys and values of one position in all layers, in float32."""
    return text.num_hidden_layers * 2 * text.num_key_value_heads * text.head_dim * 4


def choose_width(
    text: TextConfig, engine: EngineName, memory: Memory, parallel: Parallel = 1, cache_bytes: int | None = None
) -> Width:
    """What `parallel` and `cache_bytes` of `SmolVLM.load` come to.

    Args:
        text: Of the model.
        engine: Of the decoder.
        memory: See `SmolVLM.load`.
        parallel: How many were asked for.
        cache_bytes: Bytes that keys and values may take; None for half of the memory that is free, with several.

    Raises:
        RequestError: They make no sense.
    """
    if not is_whole(parallel, 1, MOST) and not (isinstance(parallel, str) and parallel == "auto"):
        raise RequestError(f"parallel must be auto or a number from 1 to {MOST}, not {str(parallel)[:40]!r}")
    if cache_bytes is not None and not is_whole(cache_bytes, 1, None):
        raise RequestError("cache_bytes must be a whole number, 1 or more, or None")
    if memory == "low" and parallel not in {1, "auto"}:
        raise RequestError("memory low answers one question at a time, because one half of the model is open at a time")
    size = bytes_per_position(text)
    budget = None if cache_bytes is None else cache_bytes // size
    if engine == "openvino":
        return Width(1, budget, "OpenVINO's decoder takes one sequence at a time")
    if parallel == 1 or memory == "low":
        return Width(1, budget, ONE.why)
    if budget is None and (free := memory_bytes()[1]) is not None:
        budget = free // 2 // size
    if parallel != "auto":
        return Width(parallel, budget, "asked for")
    cores = available_cores()
    room = AUTO_MOST if budget is None else budget // TYPICAL_POSITIONS
    count = max(1, min(AUTO_MOST, PER_CORE * cores, room))
    why = f"{PER_CORE} for each of {cores} processors, at most {AUTO_MOST}"
    if count < min(AUTO_MOST, PER_CORE * cores):
        why = f"half of the free memory holds the keys and values of {room} questions about a picture"
    return Width(count, budget, why)
