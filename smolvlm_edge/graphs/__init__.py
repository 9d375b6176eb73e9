"""Running one graph: what the rest of the runtime may assume of an inference engine.

Only the modules in this folder import an engine, and only when a model is loaded.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle import Target
from smolvlm_edge.graphs.quota import cpu_quota
from smolvlm_edge.graphs.topology import full_cores

Floats = npt.NDArray[np.float32]
CLOSED = "the model was closed while it was answering"


class Graph(Protocol):
    """A graph with one input and one output, without state."""

    def __call__(self, array: npt.NDArray[np.generic]) -> Floats:
        """Run the graph on its only input."""

    def close(self) -> None:
        """Free the graph's memory; it cannot be called any more."""


class Decoder(Protocol):
    """The decoder graph with its key/value cache: slots, of which each holds one sequence.

    Who has one sequence only need not speak of slots: it is in the first.
    """

    @property
    def slots(self) -> int:
        """Sequences that it can hold."""

    @property
    def chunk(self) -> int:
        """Positions to append at once while a prompt is read."""

    @property
    def bytes_per_position(self) -> int:
        """Of the cache."""

    @property
    def length(self) -> int:
        """Positions in the first slot."""

    def length_of(self, slot: int) -> int:
        """Positions in a slot."""

    def reserve(self, length: int) -> None:
        """Make room for that many positions in every slot; what nothing is written to takes no memory."""

    def truncate(self, length: int, slot: int = 0) -> None:
        """Forget every position of a slot from `length` on."""

    def release(self, slot: int) -> None:
        """Give back the memory of a slot's positions that were forgotten, where the system takes it."""

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Write some positions of a slot to the same places of another, which ends with them."""

    def __call__(self, inputs_embeds: Floats, logits_to_keep: int = 1, slot: int = 0) -> Floats:
        """Append positions to a slot.

        Args:
            inputs_embeds: [new positions, hidden].
            logits_to_keep: How many of the last positions to score.
            slot: Whose sequence they belong to.

        Returns:
            [logits_to_keep, vocab_size]; valid until the next call.
        """

    def step(self, inputs_embeds: Floats, slots: Sequence[int]) -> Floats:
        """Append one position to each of several slots, in one run of the graph.

        Slots that lie between them are computed too, and what comes of that is thrown away.

        Args:
            inputs_embeds: [slots, hidden].
            slots: In ascending order; none of them is empty.

        Returns:
            [slots, vocab_size]; valid until the next call.
        """

    def close(self) -> None:
        """Free the graph's memory; it cannot be called any more."""


class Engine(Protocol):
    """Opens graphs."""

    @property
    def target(self) -> Target:
        """Which of a bundle's graphs it runs."""

    def graph(self, path: Path) -> Graph:
        """Open a graph without state."""

    def decoder(self, path: Path, slots: int = 1) -> Decoder:
        """Open the decoder graph, for so many sequences; one that cannot take several has one slot all the same."""


def available_cores(root: Path = Path("/")) -> int:
    """Threads to compute with: the full cores among the processors that affinity and a control group's quota leave.

    Slow cores and second threads of a core do not count; see `topology`.

    A quota of 1.5 processors counts as 2: both threads pause together for a quarter of the time, where one alone would
    leave a third of the quota unused. One of 1.4 counts as 1.

    Args:
        root: Where the system's files are; see `cpu_quota`.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = full_cores(allowed, root)
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))
