"""Which engine runs a bundle: the only place where that is decided."""

from importlib.util import find_spec
from typing import Literal, get_args

from smolvlm_edge.bundle import Bundle, Target
from smolvlm_edge.errors import EngineError, RequestError
from smolvlm_edge.graphs import Engine

EngineName = Literal["onnxruntime", "openvino"]
TARGETS: dict[EngineName, Target] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What an engine runs; the engines in order of preference."""


def target_of(engine: EngineName | None) -> Target:
    """What a bundle has to hold graphs for if that engine is wanted; asked before anything is fetched or made.

    Raises:
        RequestError: There is no such engine.
        EngineError: It is not installed.
    """
    if engine is None:
        return "onnx"
    if engine not in get_args(EngineName):
        raise RequestError(f"engine must be one of {', '.join(get_args(EngineName))}, not {engine!r}")
    _check_installed(engine)
    return TARGETS[engine]


def choose_engine(bundle: Bundle, wanted: EngineName | None) -> EngineName:
    """The engine that was asked for; if none was, the first one that the bundle holds graphs for.

    Raises:
        RequestError: The bundle holds no graphs for it.
    """
    if wanted is None:
        return _engines(bundle)[0]
    check_engine(bundle, wanted)
    return wanted


def check_engine(bundle: Bundle, engine: EngineName) -> None:
    """Refuse a bundle that an engine cannot run.

    Raises:
        RequestError: The bundle holds no graphs for it.
    """
    if TARGETS[engine] not in bundle.targets:
        raise RequestError(
            f"{bundle.folder} holds graphs for {' and '.join(_engines(bundle))}, none for {engine}: "
            f"export the checkpoint with --target {TARGETS[engine]}"
        )


def open_engine(name: EngineName, threads: int) -> Engine:
    """Import the engine and set it up.

    Raises:
        EngineError: It is not installed, or its installation is damaged.
    """
    if name == "onnxruntime":
        from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415 - no engine before a model

        return OnnxRuntimeEngine(threads)
    _check_installed(name)
    try:
        from smolvlm_edge.graphs.openvino import OpenVinoEngine  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EngineError(f"openvino cannot be loaded ({error}): pip install --force-reinstall openvino") from error
    return OpenVinoEngine(threads)


def _engines(bundle: Bundle) -> list[EngineName]:
    return [engine for engine, target in TARGETS.items() if target in bundle.targets]


def _check_installed(name: EngineName) -> None:
    if name == "openvino" and find_spec(name) is None:
        raise EngineError("openvino is not installed: pip install 'smol-edge[openvino]'")
