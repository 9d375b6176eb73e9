"""Which engine runs which half of a bundle: the only place where that is decided.

    --engine auto                                      what fits the bundle and the machine, by `choose_engines`
    --engine openvino                                  everything on this one, or an error
    --engine vision=openvino,decoder=onnxruntime       each half on its own; a half that is left out is `auto`

`vision` is the vision encoder with the connector, `decoder` the token table with the decoder. Between the halves go
image features, as numpy arrays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any, Literal

from smolvlm_edge.bundle import HALVES, Bundle, Half, Target, Targets, Wanted
from smolvlm_edge.errors import EngineError, RequestError
from smolvlm_edge.graphs import Engine, available_cores
from smolvlm_edge.machine import processor_features
from smolvlm_edge.store.measured import recall

EngineName = Literal["onnxruntime", "openvino"]
TARGETS: dict[EngineName, Target] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What an engine runs; the engines in order of preference."""
REMEDIES: dict[EngineName, str] = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'smol-edge[openvino]'",
}
AUTO = "auto"
Wish = Mapping[Half, EngineName | None]
"""The engine that was named for each half; None for `auto`."""


@dataclass(frozen=True, slots=True)
class Row:
    """What `auto` prefers on a kind of processor, where a bundle and the installation leave the choice."""

    processor: str
    features: frozenset[str]
    """Any of these (see `machine.FEATURES`); empty for every processor."""
    vision: EngineName
    decoder: EngineName
    ground: str

    @property
    def picks(self) -> dict[Half, EngineName]:
        """The engine for each half."""
        return {"vision": self.vision, "decoder": self.decoder}


TABLE = (
    Row(
        processor="x86 with VNNI (AVX-512 or AVX)",
        features=frozenset({"vnni"}),
        vision="onnxruntime",
        decoder="onnxruntime",
        ground="measured with the 256M shape in int4: as fast per tile, faster at text, less memory",
    ),
    Row(
        processor="any other",
        features=frozenset(),
        vision="onnxruntime",
        decoder="onnxruntime",
        ground="not measured: it needs no extra",
    ),
)
"""The first row that fits counts. bf16 and AMX have none: both engines compute in float32 between the operators."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The engine of one half."""

    engine: EngineName
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The engines of both halves."""

    vision: Pick
    decoder: Pick

    def __str__(self) -> str:
        """As `--engine` takes it."""
        return engine_text(self.vision.engine, self.decoder.engine)

    @property
    def targets(self) -> Targets:
        """What of a bundle they run."""
        return {"vision": TARGETS[self.vision.engine], "decoder": TARGETS[self.decoder.engine]}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        picks = {"vision": self.vision, "decoder": self.decoder}
        return {half: {"engine": pick.engine, "why": pick.why} for half, pick in picks.items()}


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


def wanted_targets(engine: str) -> Wanted:
    """What a bundle has to hold graphs for; asked before anything is fetched or made.

    Raises:
        RequestError: There is no such engine.
        EngineError: It is not installed.
    """
    wish, present, row = read_wish(engine), installed(), table_row()
    named = [each for each in wish.values() if each]
    for each in named:
        _check_installed(each)
    if not present:
        _check_installed("onnxruntime")
    preferred = [wish[half] or (pick if pick in present else present[0]) for half, pick in row.picks.items()]
    return Wanted(
        made_for=_targets(preferred),
        needed=_targets(named or (present if len(present) == 1 else ())),
    )


def choose_engines(bundle: Bundle, engine: str = AUTO, threads: int | None = None) -> Choice:
    """The engines for a bundle, and why.

    A half for which none was named goes by what the bundle holds and what is installed. Where that leaves a choice,
    by what `smol-edge bench --store` measured on this machine with such a bundle, else by `TABLE`.

    Raises:
        RequestError: There is no such engine, or the bundle holds no graphs for it.
        EngineError: None that the bundle holds graphs for is installed.
    """
    wish = read_wish(engine)
    found = _automatic(bundle, threads or available_cores()) if None in wish.values() else {}
    for half, named in wish.items():
        if named:
            _check_held(bundle, named)
            found[half] = Pick(named, "asked for by name")
    return Choice(found["vision"], found["decoder"])


def combinations(bundle: Bundle) -> dict[str, tuple[EngineName, EngineName]]:
    """Every way to run a bundle here, as `--engine` takes it -> (vision, decoder); single engines come first.

    Raises:
        EngineError: None that the bundle holds graphs for is installed.
    """
    usable = _usable(bundle)
    pairs = sorted(product(usable, usable), key=lambda pair: pair[0] != pair[1])
    return {engine_text(*pair): pair for pair in pairs}


def check_engines(bundle: Bundle, choice: Choice) -> None:
    """Refuse a bundle that the engines cannot run.

    Raises:
        RequestError: The bundle holds no graphs for one of them.
    """
    for each in (choice.vision, choice.decoder):
        _check_held(bundle, each.engine)


def open_engines(choice: Choice, threads: int) -> Engines:
    """Import the engines and set them up; errors as in `open_engine`."""
    vision = open_engine(choice.vision.engine, threads)
    same = choice.vision.engine == choice.decoder.engine
    return Engines(vision, vision if same else open_engine(choice.decoder.engine, threads))


def open_engine(name: EngineName, threads: int) -> Engine:
    """Import the engine and set it up.

    Raises:
        EngineError: It is not installed, or its installation is damaged.
    """
    _check_installed(name)
    try:
        if name == "onnxruntime":
            from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415 - no engine before a model

            return OnnxRuntimeEngine(threads)
        from smolvlm_edge.graphs.openvino import OpenVinoEngine  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EngineError(f"{name} cannot be loaded ({error}): pip install --force-reinstall {name}") from error
    return OpenVinoEngine(threads)


def installed() -> list[EngineName]:
    """The engines that can be imported, as far as that shows without doing it."""
    return [engine for engine in TARGETS if find_spec(engine) is not None]


def table_row() -> Row:
    """The row of `TABLE` for this processor."""
    features = {*processor_features()}
    return next(row for row in TABLE if not row.features or row.features & features)


def _automatic(bundle: Bundle, threads: int) -> dict[Half, Pick]:
    usable = _usable(bundle)
    if len(usable) == 1:
        return dict.fromkeys(HALVES, Pick(usable[0], _only(bundle, usable[0])))
    measured = recall(bundle, threads)
    if measured and (pair := combinations(bundle).get(measured.engine)):
        why = f"measured on this machine on {measured.day} by smol-edge bench"
        return {half: Pick(engine, why) for half, engine in zip(HALVES, pair, strict=True)}
    row = table_row()
    return {half: Pick(engine, f"{row.processor}: {row.ground}") for half, engine in row.picks.items()}


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


def _held(bundle: Bundle) -> list[EngineName]:
    return [engine for engine, target in TARGETS.items() if target in bundle.targets]


def _usable(bundle: Bundle) -> list[EngineName]:
    """Those that are installed of what the bundle holds graphs for."""
    usable = [each for each in _held(bundle) if each in installed()]
    if not usable:
        _check_installed(_held(bundle)[0])
    return usable


def _targets(engines: Iterable[EngineName]) -> tuple[Target, ...]:
    wanted = {*engines}
    return tuple(target for engine, target in TARGETS.items() if engine in wanted)


def _only(bundle: Bundle, engine: EngineName) -> str:
    if len(_held(bundle)) == 1:
        return "the bundle holds graphs for it alone"
    missing = next(each for each in _held(bundle) if each != engine)
    return f"{missing} is not installed"


def _check_held(bundle: Bundle, engine: EngineName) -> None:
    if engine not in _held(bundle):
        raise RequestError(
            f"{bundle.folder} holds graphs for {' and '.join(_held(bundle))}, none for {engine}: "
            f"export the checkpoint with --target {TARGETS[engine]}"
        )


def _check_installed(name: EngineName) -> None:
    if name not in installed():
        raise EngineError(f"{name} is not installed: {REMEDIES[name]}")
