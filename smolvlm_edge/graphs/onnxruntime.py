"""Graphs on ONNX Runtime; the only module that imports it."""

import ctypes
import math
import mmap
import os
import sys
from collections.abc import Mapping, Sequence

# Wheels since 1.29 report to their maker unless this is set before the import, which may already send an event.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from smolvlm_edge.errors import EngineError
from smolvlm_edge.graphs import CLOSED, Floats
from smolvlm_edge.graphs.memory import return_freed_memory, unload_file
from smolvlm_edge.graphs.overflow import byte_products_overflow

CACHE_STEP = 256  # positions by which a cache grows
SILENT = 4  # an error arrives as an exception; the engine need not print it as well
_sessions: WeakSet[ort.InferenceSession] = WeakSet()
"""All that are open."""
PRIVATE = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}  # Windows has no other
SPIN_US = "20"
"""How long a thread without work looks for more before it sleeps. Gaps between the products of a token are shorter;
unbounded, threads that wait would take the time of those that they wait for as soon as another program computes
(benchmarks/busy.py)."""


DECODER_INPUTS = {"inputs_embeds", "logits_to_keep", "seqlens_k", "total_sequence_length", "past_key_values.0.key"}
Options = Mapping[str, str | int | float]


class OnnxRuntimeEngine:
    """Opens graphs with a given number of threads."""

    target: Literal["onnx"] = "onnx"

    def __init__(self, threads: int, options: Options | None = None) -> None:
        """Options are entries of the session configuration, and come before our own."""
        self.threads, self.options = threads, options or {}

    def graph(self, path: Path) -> "OnnxGraph":
        """Open a graph without state."""
        session = _session(path, self.threads, self.options)
        if (len(session.get_inputs()), len(session.get_outputs())) != (1, 1):
            raise EngineError(f"{path} has not one input and one output: export the model again")
        return OnnxGraph(session)

    def decoder(self, path: Path, slots: int = 1) -> "OnnxDecoder":
        """Open the decoder graph, for so many sequences."""
        session = _session(path, self.threads, self.options)
        inputs, outputs = ({node.name for node in nodes} for nodes in (session.get_inputs(), session.get_outputs()))
        if not inputs >= DECODER_INPUTS or "logits" not in outputs:
            raise EngineError(f"{path} has not a decoder's inputs and outputs: export the model again")
        return OnnxDecoder(session, slots)


class OnnxGraph:
    """A graph with one input and one output."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def __call__(self, array: npt.NDArray[np.generic]) -> Floats:
        """Run the graph on its only input."""
        session = self._session
        if session is None:
            raise EngineError(CLOSED)
        (output,) = _run(session.run, [self._output], {self._input: array})
        return output

    def close(self) -> None:
        """Free the session."""
        self._session = None
        return_freed_memory()


class OnnxFunction:
    """A graph with any inputs and outputs, by name."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = _session(path, threads, {})
        self.output_names = [node.name for node in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Floats]:
        """Run the graph; inputs that it does not have are left out."""
        known = {node.name for node in self._session.get_inputs()}
        feeds = {name: array for name, array in inputs.items() if name in known}
        return dict(zip(self.output_names, _run(self._session.run, self.output_names, feeds), strict=True))


class OnnxDecoder:
    """The decoder; its cache is updated in place.

    Past and present of a layer are bound to the same buffer [slots, key/value heads, capacity, head_dim], which
    GroupQueryAttention notices: it then writes the new keys and values where they belong and copies nothing. The part
    of one slot is contiguous, and so is that of neighbours: whichever is bound is what a run computes. A buffer that is
    too small is replaced by one some steps larger.
    """

    chunk = 128
    """Attention weights of a chunk take heads × chunk × context × 4 bytes: 38 MB for 8,192 positions of the 256M shape,
    where the whole prompt at once would take 2.4 GB."""

    def __init__(self, session: ort.InferenceSession, slots: int = 1) -> None:
        self._session: ort.InferenceSession | None = session
        self.slots = slots
        past = [node for node in session.get_inputs() if node.name.startswith("past_key_values.")]
        self._names = [(node.name, node.name.replace("past_key_values.", "present.")) for node in past]
        _, self._heads, _, self._head_dim = past[0].shape
        self._vocab_size = session.get_outputs()[-1].shape[-1]
        self._caches: dict[str, _Cache] = {}
        self._bindings: dict[tuple[int, int], _Binding] = {}
        """What is bound for a run of the slots from one to before another."""
        # one for all of them: 64 slots take 13 MB with the 256M shape, and there may be as many bindings
        self._logits: Floats = np.empty(0, np.float32)
        self._capacity = 0
        self._lengths = [0] * slots

    @property
    def bytes_per_position(self) -> int:
        """Of the cache."""
        return len(self._names) * self._heads * self._head_dim * 4

    @property
    def length(self) -> int:
        """Positions in the first slot."""
        return self._lengths[0]

    def length_of(self, slot: int) -> int:
        """Positions in a slot."""
        return self._lengths[slot]

    def reserve(self, length: int) -> None:
        """Make room for that many positions in every slot."""
        if length <= self._capacity:
            return
        if self._session is None:
            raise EngineError(CLOSED)
        capacity = -(-length // CACHE_STEP) * CACHE_STEP
        shape = (self.slots, self._heads, capacity, self._head_dim)
        self._bindings = {}
        for name, _ in self._names:  # one by one, so that never more than one is there twice
            try:
                cache = _Cache(shape)
            except (MemoryError, OSError) as error:
                raise EngineError(f"not enough memory for a context of {length} tokens") from error
            if name in self._caches:
                for slot, kept in enumerate(self._lengths):
                    cache.values[slot, :, :kept] = self._caches[name].values[slot, :, :kept]
            self._caches[name] = cache
        self._capacity = capacity

    def truncate(self, length: int, slot: int = 0) -> None:
        """Forget every position of a slot from `length` on."""
        self._lengths[slot] = min(self._lengths[slot], length)

    def release(self, slot: int) -> None:
        """Give back the memory of a slot's positions that were forgotten."""
        for cache in list(self._caches.values()):
            cache.release(slot, self._lengths[slot])

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Write some positions of a slot to the same places of another, which ends with them."""
        for cache in list(self._caches.values()):
            cache.values[target, :, start:stop] = cache.values[source, :, start:stop]
        self._lengths[target] = stop

    def __call__(self, inputs_embeds: Floats, logits_to_keep: int = 1, slot: int = 0) -> Floats:
        """Append positions [new positions, hidden] to a slot; return logits [logits_to_keep, vocab_size]."""
        total = self._lengths[slot] + len(inputs_embeds)
        logits = self._run(inputs_embeds[None], logits_to_keep, slot, [total])
        self._lengths[slot] = total
        return logits[0]

    def step(self, inputs_embeds: Floats, slots: Sequence[int]) -> Floats:
        """Append one position [slots, hidden] to each of several slots; return logits [slots, vocab_size]."""
        first, last = slots[0], slots[-1]
        rows = np.array(slots) - first
        embeds = np.zeros((last - first + 1, 1, inputs_embeds.shape[-1]), np.float32)
        embeds[rows, 0] = inputs_embeds
        # what is computed of a slot in between goes behind its last position; the next that is appended overwrites it
        logits = self._run(embeds, 1, first, [length + 1 for length in self._lengths[first : last + 1]])
        for slot in slots:
            self._lengths[slot] += 1
        return logits[:, 0] if len(slots) == len(embeds) else logits[rows, 0]

    def _run(self, inputs_embeds: Floats, logits_to_keep: int, first: int, totals: list[int]) -> Floats:
        """Compute neighbouring slots [slots, new positions, hidden]; return logits [slots, logits_to_keep, vocab_size].

        Args:
            inputs_embeds: What is appended to each.
            logits_to_keep: How many of the last positions to score.
            first: The first of the slots.
            totals: Positions that are in each of them afterwards.
        """
        self.reserve(max(totals))
        session, caches, bindings = self._session, self._caches, self._bindings
        if session is None or not caches:
            raise EngineError(CLOSED)
        key = first, len(totals)
        if (bound := bindings.get(key)) is None:
            bound = bindings[key] = _Binding(session, caches, self._names, *key)
        bind = bound.binding.bind_cpu_input
        bind("inputs_embeds", np.ascontiguousarray(inputs_embeds))
        bind("logits_to_keep", np.array([logits_to_keep], np.int64))
        bind("seqlens_k", np.array(totals, np.int32) - 1)
        bind("total_sequence_length", np.array(max(totals), np.int32))
        logits = bound.logits_in(self._room_for_logits(len(totals) * logits_to_keep), logits_to_keep, self._vocab_size)
        _run(session.run_with_iobinding, bound.binding)
        return logits

    def _room_for_logits(self, rows: int) -> Floats:
        if self._logits.size < rows * self._vocab_size:
            self._logits = np.empty(max(rows, self.slots) * self._vocab_size, np.float32)
        return self._logits

    def close(self) -> None:
        """Free the session and the cache."""
        self._session, self._caches, self._bindings, self._capacity = None, {}, {}, 0
        self._logits = np.empty(0, np.float32)
        self._lengths = [0] * self.slots
        return_freed_memory()


class _Cache:
    """The keys or the values of a layer."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Pages of its own: those that nothing was written to take no memory, and all go when the array does."""
        self._pages = mmap.mmap(-1, 4 * math.prod(shape), **PRIVATE)
        self.values: Floats = np.frombuffer(self._pages, np.float32).reshape(shape)

    def release(self, slot: int, length: int) -> None:
        """Give back the pages that hold nothing but a slot's positions from `length` on."""
        if not hasattr(mmap, "MADV_DONTNEED") or sys.platform == "darwin":  # there it means something weaker
            return
        _, heads, capacity, head_dim = self.values.shape
        for head in range(heads):
            row = (slot * heads + head) * capacity
            start = -(-(row + length) * head_dim * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
            size = (row + capacity) * head_dim * 4 // mmap.PAGESIZE * mmap.PAGESIZE - start
            if size > 0:
                self._pages.madvise(mmap.MADV_DONTNEED, start, size)


class _Binding:
    """Where a run of neighbouring slots finds its cache, and puts its logits."""

    def __init__(
        self,
        session: ort.InferenceSession,
        caches: Mapping[str, _Cache],
        names: Sequence[tuple[str, str]],
        first: int,
        count: int,
    ) -> None:
        self.binding = session.io_binding()
        self._count = count
        self._buffer: Floats | None = None
        self._logits: Floats = np.empty((count, 0, 0), np.float32)
        # held as long as this is, because the model may be closed while it runs
        self._parts = [caches[past].values[first : first + count] for past, _ in names]
        for (past, present), part in zip(names, self._parts, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(part)
            self.binding.bind_ortvalue_input(past, value)
            self.binding.bind_ortvalue_output(present, value)

    def logits_in(self, buffer: Floats, count: int, vocab_size: int) -> Floats:
        """Where in a buffer the engine writes them: asking it for its outputs costs a token 2 % of its time."""
        shape = (self._count, count, vocab_size)
        if self._buffer is not buffer or self._logits.shape != shape:
            self._buffer, self._logits = buffer, buffer[: math.prod(shape)].reshape(shape)
            self.binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        return self._logits


def run_bytes(graph: bytes, inputs: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """The only output of a small graph, with nothing but the engine's defaults."""
    return _run(ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run, None, dict(inputs))[0]


def _session(path: Path, threads: int, configuration: Options) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    options.log_severity_level = SILENT
    options.enable_mem_pattern = False  # a plan of the buffers ahead holds 40 MB more for a tile and gains no time
    if byte_products_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")
    # the fused operator is slower than the two that it replaces (see export/targets/onnx.py)
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    try:
        for key, value in configuration.items():
            options.add_session_config_entry(key, str(value))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"onnxruntime {ort.__version__} refuses {path}: {_first_line(error)}") from error
    unload_file(path.with_suffix(".onnx.data"))
    _sessions.add(session)
    return session


def _keep_sessions() -> None:
    """Let none of them end in a forked process: that would wait for threads that only the parent has."""
    for session in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


def _run(function: Any, *arguments: object) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise EngineError(f"onnxruntime {ort.__version__} failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
