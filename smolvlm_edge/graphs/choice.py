"""Which engine runs which half of a bundle, and why: the only place where that is decided."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from smolvlm_edge.bundle import HALVES, Bundle, Half, Target, Targets, Wanted
from smolvlm_edge.errors import RequestError
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.engines import (
    AUTO,
    TARGETS,
    EngineName,
    Wish,
    check_installed,
    engine_text,
    installed,
    read_wish,
)
from smolvlm_edge.machine import processor_features
from smolvlm_edge.store.measured import FIRST_LOAD, Measured, recall

TRIED: dict[Half, str] = {"vision": "a tile", "decoder": "some of a prompt and tokens after it"}
"""What `trial` measures."""


@dataclass(frozen=True, slots=True)
class Row:
    """What `auto` prefers on a kind of processor, where a bundle and the installation leave the choice."""

    processor: str
    features: frozenset[str]
    """All of these (see `machine.FEATURES`); empty for every processor."""
    vision: EngineName
    decoder: EngineName
    ground: str

    @property
    def picks(self) -> dict[Half, EngineName]:
        """The engine for each half."""
        return {"vision": self.vision, "decoder": self.decoder}


TABLE = (
    Row(
        processor="x86 with AVX512-BF16",
        features=frozenset({"avx512", "bf16"}),
        vision="openvino",
        decoder="onnxruntime",
        ground="measured with the 256M shape in int4: a tile in 0.21 instead of 0.26 s, in bf16, but text slower",
    ),
    Row(
        processor="x86 with AVX-512 and VNNI",
        features=frozenset({"avx512", "vnni"}),
        vision="openvino",
        decoder="onnxruntime",
        ground="measured on an Emerald Rapids with the 256M shape in int4: a tile in 0.51 instead of 0.67 s, text no "
        "faster",
    ),
    Row(
        processor="other x86 with VNNI",
        features=frozenset({"vnni"}),
        vision="onnxruntime",
        decoder="onnxruntime",
        ground="measured with the 256M shape in int4: as fast per tile, faster at text, less memory",
    ),
    Row(
        processor="x86 with AVX2",
        features=frozenset({"avx2"}),
        vision="onnxruntime",
        decoder="onnxruntime",
        ground="measured on a Zen 3 with the 256M shape in int4: a tile in 1.43 instead of 2.25 s, less memory; text "
        "was measured on ONNX Runtime alone",
    ),
    Row(
        processor="any other",
        features=frozenset(),
        vision="onnxruntime",
        decoder="onnxruntime",
        ground="not measured: it needs no extra",
    ),
)
"""The first row that fits counts."""


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


def wanted_targets(engine: str) -> Wanted:
    """What a bundle has to hold graphs for; asked before anything is fetched or made.

    Raises:
        RequestError: There is no such engine.
        EngineError: It is not installed.
    """
    wish, present, row = read_wish(engine), installed(), table_row()
    named = [each for each in wish.values() if each]
    for each in named:
        check_installed(each)
    if not present:
        check_installed("onnxruntime")
    preferred = [wish[half] or (pick if pick in present else present[0]) for half, pick in row.picks.items()]
    if row is TABLE[-1] and None in wish.values():  # nothing is known of this processor: let the first load find out
        preferred += present
    return Wanted(
        made_for=_targets(preferred),
        needed=_targets(named or (present if len(present) == 1 else ())),
    )


def choose_engines(bundle: Bundle, engine: str = AUTO, threads: int | None = None) -> Choice:
    """The engines for a bundle, and why.

    A half for which none was named goes by what the bundle holds and what is installed. Where that leaves a choice,
    by what was measured on this machine with such a bundle (by `smol-edge bench --store`, or see `trial`), else by
    `TABLE`.

    Raises:
        RequestError: There is no such engine, or the bundle holds no graphs for it.
        EngineError: None that the bundle holds graphs for is installed.
    """
    wish = read_wish(engine)
    found = _automatic(bundle, threads or available_cores()) if None in wish.values() else {}
    for half, named in wish.items():
        if named:
            _check_held(bundle, named, others={*wish.values()} - {named})
            found[half] = Pick(named, "asked for by name")
    return Choice(found["vision"], found["decoder"])


def combinations(bundle: Bundle) -> dict[str, tuple[EngineName, EngineName]]:
    """Every way to run a bundle here, as `--engine` takes it -> (vision, decoder); single engines come first.

    Raises:
        EngineError: None that the bundle holds graphs for is installed.
    """
    usable = usable_engines(bundle)
    pairs = sorted(product(usable, usable), key=lambda pair: pair[0] != pair[1])
    return {engine_text(*pair): pair for pair in pairs}


def check_engines(bundle: Bundle, choice: Choice) -> None:
    """Refuse a bundle that the engines cannot run.

    Raises:
        RequestError: The bundle holds no graphs for one of them.
    """
    for each in (choice.vision, choice.decoder):
        _check_held(bundle, each.engine, others={choice.vision.engine, choice.decoder.engine} - {each.engine})


def table_row() -> Row:
    """The row of `TABLE` for this processor."""
    features = {*processor_features()}
    return next(row for row in TABLE if row.features <= features)


def usable_engines(bundle: Bundle) -> list[EngineName]:
    """Those that are installed of what the bundle holds graphs for.

    Raises:
        EngineError: None is.
    """
    usable = [each for each in _held(bundle) if each in installed()]
    if not usable:
        check_installed(_held(bundle)[0])
    return usable


def _automatic(bundle: Bundle, threads: int) -> dict[Half, Pick]:
    usable = usable_engines(bundle)
    if len(usable) == 1:
        return dict.fromkeys(HALVES, Pick(usable[0], _only(bundle, usable[0])))
    row = table_row()
    picks = {half: Pick(engine, f"{row.processor}: {row.ground}") for half, engine in row.picks.items()}
    if (measured := recall(bundle, threads)) is None:
        return picks
    for half, found in _read(measured).items():
        if found in usable:
            picks[half] = Pick(found, _measured(measured, half, found))
        elif measured.origin == FIRST_LOAD:
            missed = f"; on {measured.day} it was too slow to be measured in passing, but smol-edge bench --store can"
            picks[half] = Pick(picks[half].engine, picks[half].why + missed)
    return picks


def _read(measured: Measured) -> Wish:
    try:
        return read_wish(measured.engine)
    except RequestError:  # of a file that somebody wrote into
        return {}


def _measured(measured: Measured, half: Half, engine: EngineName) -> str:
    times = measured.seconds.get(half, {})
    told = [f"{times[name]:.2f} s on {name}" for name in sorted(times, key=lambda name: (name != engine, name))]
    figures = f": {TRIED[half]} in {', '.join(told)}" if told else ""
    return f"measured on this machine on {measured.day} {measured.origin}{figures}"


def _held(bundle: Bundle) -> list[EngineName]:
    return [engine for engine, target in TARGETS.items() if target in bundle.targets]


def _targets(engines: Iterable[EngineName]) -> tuple[Target, ...]:
    wanted = {*engines}
    return tuple(target for engine, target in TARGETS.items() if engine in wanted)


def _only(bundle: Bundle, engine: EngineName) -> str:
    if len(_held(bundle)) == 1:
        return "the bundle holds graphs for it alone"
    missing = next(each for each in _held(bundle) if each != engine)
    return f"{missing} is not installed"


def _check_held(bundle: Bundle, engine: EngineName, others: Collection[EngineName | None]) -> None:
    if engine not in _held(bundle):
        raise RequestError(
            f"{bundle.folder} holds graphs for {' and '.join(_held(bundle))}, none for {engine}: "
            f"export the checkpoint with --target {'both' if others else TARGETS[engine]}"
        )
