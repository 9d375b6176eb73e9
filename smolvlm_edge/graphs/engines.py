"""The engines, and what `--engine` says of them.

    --engine auto                                      what fits the bundle and the machine, by `choice.choose_engines`
    --engine openvino                                  everything on this one, or an error
    --engine vision=openvino,decoder=onnxruntime       each half on its own; a half that is left out is `auto`

`vision` is the vision encoder with the connector, `decoder` the token table with the decoder. Between the halves go
image features, as numpy arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from smolvlm_edge.bundle import HALVES, Half, Target, Targets
from smolvlm_edge.errors import EngineError, RequestError
from smolvlm_edge.graphs import Engine

EngineName = Literal["onnxruntime", "openvino"]
TARGETS: dict[EngineName, Target] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What an engine runs; the engines in order of preference."""
REMEDIES: dict[EngineName, str] = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'smol-edge[openvino]'",
}
AUTO = "auto"
EngineOptions = Mapping[EngineName, Mapping[str, str | int | float]]
"""Settings that are handed to an engine as they are: onnxruntime's session configuration, openvino's properties."""
Wish = Mapping[Half, EngineName | None]
"""The engine that was named for each half; None for `auto`."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines that were opened for the halves of a model."""

    vision: Engine
    decoder: Engine

    @property
    def targets(self) -> Targets:
        """What of a bundle they run."""
        return {"vision": self.vision.target, "decoder": self.decoder.target}


def engine_text(vision: EngineName, decoder: EngineName) -> str:
    """Two engines as `--engine` takes them."""
    return vision if vision == decoder else f"vision={vision},decoder={decoder}"


def read_wish(text: str) -> Wish:
    """What `--engine` says.

    Raises:
        RequestError: It is none of the forms above.
    """
    if "=" not in text:
        return dict.fromkeys(HALVES, _engine(text))
    wish: dict[Half, EngineName | None] = {"vision": None, "decoder": None}
    for part in text.split(","):
        name, _, engine = part.partition("=")
        half = next((each for each in HALVES if each == name), None)
        if half is None:
            raise RequestError(f"engine: {name!r} is no half of a model: as in vision=openvino,decoder=onnxruntime")
        wish[half] = _engine(engine)
    return wish


def open_engines(
    vision: EngineName, decoder: EngineName, threads: int, options: EngineOptions | None = None
) -> Engines:
    """Import the engines and set them up; arguments and errors as in `open_engine`."""
    first = open_engine(vision, threads, options)
    return Engines(first, first if vision == decoder else open_engine(decoder, threads, options))


def open_engine(name: EngineName, threads: int, options: EngineOptions | None = None) -> Engine:
    """Import the engine and set it up.

    Args:
        name: The engine.
        threads: Threads of each of its graphs.
        options: The engine's own settings; they come before those that smol-edge chooses.

    Raises:
        EngineError: It is not installed, or its installation is damaged.
        RequestError: The options are none.
    """
    own = check_engine_options(options).get(name)
    check_installed(name)
    try:
        if name == "onnxruntime":
            from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415 - no engine before a model

            return OnnxRuntimeEngine(threads, own)
        from smolvlm_edge.graphs.openvino import OpenVinoEngine  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EngineError(f"{name} cannot be loaded ({error}): pip install --force-reinstall {name}") from error
    return OpenVinoEngine(threads, own)


def check_engine_options(options: object) -> EngineOptions:
    """Refuse what is no `EngineOptions`; whether a key means something, only its engine knows.

    Raises:
        RequestError: It is no mapping of engines to mappings of names to values.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(each, Mapping) for each in options.values()):
        raise RequestError('engine_options must be like {"onnxruntime": {"session.use_env_allocators": "1"}}')
    for engine, settings in options.items():
        if engine not in TARGETS:
            raise RequestError(f"engine_options: {str(engine)[:40]!r} is no engine: name one of {', '.join(TARGETS)}")
        for key, value in settings.items():
            if not isinstance(key, str) or not isinstance(value, str | int | float):
                raise RequestError(
                    f"engine_options: {engine}: {str(key)[:40]!r} must be a name with a text or a number"
                )
    return options


def read_engine_options(texts: Sequence[str]) -> EngineOptions:
    """What `--engine-option` says, as in openvino.KV_CACHE_PRECISION=u8.

    Raises:
        RequestError: One is of another form.
    """
    found: dict[EngineName, dict[str, str]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        engine = next((each for each in TARGETS if name.startswith(f"{each}.")), None)
        if not separator or engine is None or name == f"{engine}.":
            raise RequestError(f"--engine-option {text[:60]!r} is not like openvino.KV_CACHE_PRECISION=u8")
        found.setdefault(engine, {})[name.removeprefix(f"{engine}.")] = value
    return found


def installed() -> list[EngineName]:
    """The engines that can be imported, as far as that shows without doing it."""
    return [engine for engine in TARGETS if find_spec(engine) is not None]


def check_installed(name: EngineName) -> None:
    """Refuse an engine that cannot be imported.

    Raises:
        EngineError: It is not installed; the message says how to install it.
    """
    if name not in installed():
        raise EngineError(f"{name} is not installed: {REMEDIES[name]}")


def _engine(name: str) -> EngineName | None:
    if name == AUTO:
        return None
    engine = next((each for each in TARGETS if each == name), None)
    if engine is None:
        choices = ", ".join((AUTO, *TARGETS))
        raise RequestError(
            f"engine must be one of {choices}, not {name!r}, or as in vision=openvino,decoder=onnxruntime"
        )
    return engine
