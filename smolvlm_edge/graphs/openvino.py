"""Graphs on OpenVINO; the only module that imports it."""

import glob
import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from weakref import finalize

import numpy as np
import numpy.typing as npt

from smolvlm_edge.errors import EngineError
from smolvlm_edge.graphs import CLOSED, Floats
from smolvlm_edge.graphs.memory import return_freed_memory
from smolvlm_edge.graphs.overflow import byte_products_overflow
from smolvlm_edge.machine import processor_name
from smolvlm_edge.store.bundles import bundles_home
from smolvlm_edge.store.staging import staged

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
"""Arithmetic between the operators, and of the cache; the plugin's own choice would be bf16 and a cache of 8 bits where
the processor is fast at it. Quantised matrices are multiplied with activations of 8 bits in groups of 32, as in ONNX
Runtime."""
BRAIN_FLOATS = {"INFERENCE_PRECISION_HINT": "bf16"}
"""For graphs whose matrices are rounded anyway, if the processor multiplies bf16."""
STEP, ONE_PASS = 128, 2048
"""Positions of a prompt to append at once, in float32 and in bf16. The plugin's attention is fast for those that come
first, twice as fast in bf16 as what is appended to a cache: nearly every prompt about a picture fits into one pass."""
TILE_GROUPS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
"""For the thousand patches of a tile; single tokens gain nothing by it."""


def _import_silently() -> Any:
    """`import openvino` without its telemetry.

    It would send an event and leave an identity in the user's home, unless its telemetry package cannot be imported:
    then it uses a silent stand-in of its own.
    """
    telemetry = "openvino_telemetry"
    known = sys.modules.get(telemetry)
    sys.modules[telemetry] = None  # type: ignore[assignment]  # this is how an import is made to fail
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[telemetry]
        if known is not None:
            sys.modules[telemetry] = known


ov = _import_silently()
VERSION = ov.__version__.partition("-")[0]


class OpenVinoEngine:
    """Opens graphs on OpenVINO's CPU plugin."""

    target: Literal["openvino"] = "openvino"

    def __init__(self, threads: int, options: Mapping[str, Any] | None = None) -> None:
        """Set how many threads a graph runs on; options are the plugin's properties, and come before our own."""
        self._core = ov.Core()
        self._options = dict(options or {})
        self._properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            **EXACT,
            **({"LP_TRANSFORMS_MODE": "NO"} if byte_products_overflow() else {}),
        }
        self._has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def graph(self, path: Path) -> "OpenVinoGraph":
        """Open a graph without state."""
        return OpenVinoGraph(self._compile(path, *self._read(path, TILE_GROUPS)).create_infer_request())

    def decoder(self, path: Path, slots: int = 1) -> "OpenVinoDecoder":  # noqa: ARG002 - one is what it has
        """Open the decoder graph, or take one that was closed before.

        It has one slot: the state of a request cannot be bound a part at a time.
        """
        key = _digest(path, self._properties, self._options)
        if (found := compiled_decoders.take(key)) is None:
            model, properties = self._read(path, {})
            found = CompiledDecoder(self._compile(path, model, properties), properties["INFERENCE_PRECISION_HINT"], key)
        return OpenVinoDecoder(found)

    def _read(self, path: Path, if_quantised: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A graph, and the properties to compile it with."""
        try:
            model = self._core.read_model(path)
            names = {name for each in model.inputs for name in each.names}
        except Exception as error:
            raise _refused(path, error) from error
        if not names or not model.outputs:
            raise EngineError(f"{path} has no named inputs, or no outputs: export the model again")
        properties = self._properties
        if _multiplies_quantised(model):
            properties = properties | if_quantised | (BRAIN_FLOATS if self._has_bf16 else {})
        return model, properties | self._options

    def _compile(self, path: Path, model: Any, properties: dict[str, Any]) -> Any:
        try:
            kept = None if "CACHE_DIR" in properties else _kept_beside(path, properties)
            if kept is None:
                return self._core.compile_model(model, "CPU", properties)
            if kept.is_dir():
                return self._core.compile_model(model, "CPU", properties | {"CACHE_DIR": str(kept)})
            # the plugin writes its cache in place, where another process would map half of it
            with staged(kept) as private:
                return self._core.compile_model(model, "CPU", properties | {"CACHE_DIR": str(private)})
        except Exception as error:
            raise _refused(path, error) from error


@dataclass(frozen=True, slots=True, eq=False)
class CompiledDecoder:
    """A decoder graph as the plugin compiled it; requests made of it have caches of their own."""

    compiled: Any
    precision: str
    """In which it computes: bf16 or f32."""
    key: str
    """Of what it was compiled, and how."""
    process: int = field(default_factory=os.getpid)


class _CompiledDecoders:
    """Decoders that nobody uses at the moment.

    OpenVINO 2026.4 never frees all of a compiled graph in which it merged a cache into its attention: a thread and some
    megabytes stay (benchmarks/openvino_leak.py). So none is thrown away that could serve again.
    """

    KEPT = 2
    """As many: two models that take turns."""

    def __init__(self) -> None:
        self._idle: list[CompiledDecoder] = []

    def take(self, key: str) -> CompiledDecoder | None:
        """One that this process compiled of the same file in the same way."""
        for each in self._own():
            if each.key == key:
                with suppress(ValueError):  # another thread took it
                    self._idle.remove(each)
                    return each
        return None

    def keep(self, decoder: CompiledDecoder) -> None:
        """For the next one that asks."""
        self._idle.append(decoder)
        for oldest in self._own()[: -self.KEPT]:
            with suppress(ValueError):
                self._idle.remove(oldest)

    def _own(self) -> list[CompiledDecoder]:
        """Without those of a process that this one was forked from: freeing them would wait for its threads."""
        return [each for each in self._idle if each.process == os.getpid()]


compiled_decoders = _CompiledDecoders()


class OpenVinoGraph:
    """A graph with one input and one output."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def __call__(self, array: npt.NDArray[np.generic]) -> Floats:
        """Run the graph on its only input."""
        return _infer(self._request, [array])

    def close(self) -> None:
        """Free the graph."""
        self._request = None
        return_freed_memory()


class OpenVinoDecoder:
    """The decoder; its cache is the state of the request, which the plugin enlarges by itself. It has one slot."""

    slots = 1

    def __init__(self, decoder: CompiledDecoder) -> None:
        self._request = decoder.compiled.create_infer_request()
        self.chunk = ONE_PASS if decoder.precision == "bf16" else STEP
        self._length = 0
        self._given_back = finalize(self, compiled_decoders.keep, decoder)
        self._given_back.atexit = False

    @property
    def bytes_per_position(self) -> int:
        """Of the cache, once something is in it; with the plugin's bf16 it is half of this."""
        states = self._request.query_state() if self._request is not None else []
        return sum(4 * state.state.shape[1] * state.state.shape[3] for state in states if len(state.state.shape) == 4)

    @property
    def length(self) -> int:
        """Positions in the cache."""
        return self._length

    def reserve(self, length: int) -> None:
        """Do nothing: the plugin makes room in steps of its own."""

    def length_of(self, slot: int) -> int:  # noqa: ARG002
        """Positions in the cache."""
        return self._length

    def release(self, slot: int) -> None:
        """Do nothing: the plugin keeps what it made room for."""

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Never called: there is no other slot."""

    def truncate(self, length: int, slot: int = 0) -> None:  # noqa: ARG002
        """Forget every position from `length` on; unless all are forgotten, that copies the rest."""
        if length >= self._length:
            return
        if length == 0:
            self._request.reset_state()
        else:
            for state in self._request.query_state():
                state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :length]))
        self._length = length

    def step(self, inputs_embeds: Floats, slots: Sequence[int]) -> Floats:  # noqa: ARG002
        """Append one position [1, hidden]; return logits [1, vocab_size]."""
        return self(inputs_embeds)

    def __call__(self, inputs_embeds: Floats, logits_to_keep: int = 1, slot: int = 0) -> Floats:  # noqa: ARG002
        """Append positions [new positions, hidden]; return logits [logits_to_keep, vocab_size]."""
        past = self._length
        # counted first: an interrupt arrives when the engine is done, and the next answer must know of a cache to empty
        self._length += len(inputs_embeds)
        inputs = {
            "inputs_embeds": inputs_embeds[None],
            "logits_to_keep": np.array([logits_to_keep], np.int64),
            "position_ids": np.arange(past, self._length)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return _infer(self._request, inputs)[0]

    def close(self) -> None:
        """Free the cache; the graph is kept for who opens it next."""
        self._request, self._length = None, 0
        self._given_back()
        return_freed_memory()


def _kept_beside(path: Path, properties: dict[str, Any]) -> Path | None:
    """Where the plugin keeps what it compiles of a named model for the next time, which is then half a second sooner.

    Beside bundles in smol-edge's own folder, and nowhere else; `smol-edge models rm` removes it with them. One folder
    for each way to compile a graph: what is in it was written once.
    """
    bundle = path.parent
    if bundle.parent != bundles_home() or not os.access(bundle.parent, os.W_OK):
        return None
    kept = bundle.with_name(f".{bundle.name}.openvino-{VERSION}")
    for outdated in {*bundle.parent.glob(f".{glob.escape(bundle.name)}.openvino-*")} - {kept}:
        shutil.rmtree(outdated, ignore_errors=True)
    return kept / f"{path.stem}-{_digest(path, properties)}"


def _digest(path: Path, *circumstances: object) -> str:
    """Tells files, and what they are compiled for, apart."""
    files = [path, path.with_suffix(".bin")]
    found = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, files)]
    told = repr([os.path.realpath(path), found, processor_name(), *circumstances])
    return hashlib.sha256(told.encode(errors="replace")).hexdigest()[:16]


def _refused(path: Path, error: Exception) -> EngineError:
    return EngineError(f"openvino {VERSION} refuses {path}: {_reason(error)}")


def _multiplies_quantised(model: Any) -> bool:
    """Whether a matrix of the graph is made from codes before it is multiplied; in fp32 it is a constant itself."""
    matrices = (node.input_value(1).get_node() for node in model.get_ops() if node.get_type_name() == "MatMul")
    return any(matrix.get_type_name() in {"Multiply", "Reshape"} for matrix in matrices)


def _infer(request: Any, inputs: Any) -> Floats:
    """The only output, in memory of its own."""
    if request is None:
        raise EngineError(CLOSED)
    try:
        # shared, because copying would take an array of another shape for one without rows, and say nothing
        return request.infer(inputs, share_inputs=True)[0]
    except Exception as error:
        raise EngineError(f"openvino {VERSION} failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line: those before it say where in OpenVINO's source the error came by."""
    return ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()
