"""Graphs on ONNX Runtime; the only module that imports it."""

import ctypes
import math
import mmap
import os
import platform
from collections.abc import Collection, Mapping

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
from smolvlm_edge.machine import processor_flags

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

    def decoder(self, path: Path) -> "OnnxDecoder":
        """Open the decoder graph."""
        session = _session(path, self.threads, self.options)
        inputs, outputs = ({node.name for node in nodes} for nodes in (session.get_inputs(), session.get_outputs()))
        if not inputs >= DECODER_INPUTS or "logits" not in outputs:
            raise EngineError(f"{path} has not a decoder's inputs and outputs: export the model again")
        return OnnxDecoder(session)


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

    Past and present of a layer are bound to the same buffer [1, key/value heads, capacity, head_dim], which
    GroupQueryAttention notices: it then writes the new keys and values where they belong and copies nothing.
    A buffer that is too small is replaced by one some steps larger.
    """

    chunk = 128
    """Attention weights of a chunk take heads × chunk × context × 4 bytes: 38 MB for 8,192 positions of the 256M shape,
    where the whole prompt at once would take 2.4 GB."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self._binding: ort.IOBinding | None = session.io_binding()
        past = [node for node in session.get_inputs() if node.name.startswith("past_key_values.")]
        self._names = [(node.name, node.name.replace("past_key_values.", "present.")) for node in past]
        _, self._heads, _, self._head_dim = past[0].shape
        self._vocab_size = session.get_outputs()[-1].shape[-1]
        self._logits: Floats = np.empty((1, 0, self._vocab_size), np.float32)
        self._caches: dict[str, Floats] = {}
        self._capacity = 0
        self._length = 0

    @property
    def length(self) -> int:
        """Positions in the cache."""
        return self._length

    def reserve(self, length: int) -> None:
        """Make room for that many positions at once."""
        if length <= self._capacity:
            return
        if self._binding is None:
            raise EngineError(CLOSED)
        capacity = -(-length // CACHE_STEP) * CACHE_STEP
        shape = (1, self._heads, capacity, self._head_dim)
        for past, present in self._names:  # one by one, so that never more than one is there twice
            try:
                cache = _zeros(shape)
            except (MemoryError, OSError) as error:
                raise EngineError(f"not enough memory for a context of {length} tokens") from error
            if past in self._caches:
                cache[:, :, : self._length] = self._caches[past][:, :, : self._length]
            value = ort.OrtValue.ortvalue_from_numpy(cache)
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
            self._caches[past] = cache
        self._capacity = capacity

    def truncate(self, length: int) -> None:
        """Forget every position from `length` on."""
        self._length = min(self._length, length)

    def __call__(self, inputs_embeds: Floats, logits_to_keep: int = 1) -> Floats:
        """Append positions [new positions, hidden]; return logits [logits_to_keep, vocab_size]."""
        session, binding, caches = self._session, self._binding, self._caches
        if session is None or binding is None:
            raise EngineError(CLOSED)
        total = self._length + len(inputs_embeds)
        self.reserve(total)
        bind = binding.bind_cpu_input
        bind("inputs_embeds", np.ascontiguousarray(inputs_embeds[None]))
        bind("logits_to_keep", np.array([logits_to_keep], np.int64))
        bind("seqlens_k", np.array([total - 1], np.int32))
        bind("total_sequence_length", np.array(total, np.int32))
        logits = self._room_for_logits(binding, logits_to_keep)
        _run(session.run_with_iobinding, binding)
        del caches  # held until here, because the model may be closed in the meantime
        self._length = total
        return logits

    def _room_for_logits(self, binding: ort.IOBinding, count: int) -> Floats:
        """Where the engine is to write them: asking it for its outputs costs a token 2 % of its time."""
        if self._logits.shape[1] != count:
            self._logits = np.empty((1, count, self._vocab_size), np.float32)
            binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        return self._logits[0]

    def close(self) -> None:
        """Free the session and the cache."""
        self._session, self._binding, self._caches, self._capacity, self._length = None, None, {}, 0, 0
        return_freed_memory()


def _zeros(shape: tuple[int, ...]) -> Floats:
    """Pages of its own: those that nothing was written to take no memory, and all go when the array does."""
    return np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape), **PRIVATE), np.float32).reshape(shape)


def _session(path: Path, threads: int, configuration: Options) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    options.log_severity_level = SILENT
    options.enable_mem_pattern = False  # a plan of the buffers ahead holds 40 MB more for a tile and gains no time
    if _byte_products_overflow(platform.machine(), processor_flags()):
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


def _byte_products_overflow(machine: str, flags: Collection[str]) -> bool:
    """Whether this processor adds products of unsigned and signed bytes in 16 bits, which overflow.

    x86 without VNNI does, and ONNX Runtime uses that instruction unless it is told to be precise: a vision
    encoder in int8 was then off by 20 % (seen on an emulated Haswell; 1.7 % with the option, as elsewhere). With
    VNNI the option only costs time, half as much again per tile. Where the flags are unknown, precision wins.
    """
    return machine in ("x86_64", "AMD64") and not {"avx512_vnni", "avx_vnni"} & set(flags)


def _run(function: Any, *arguments: object) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise EngineError(f"onnxruntime {ort.__version__} failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
