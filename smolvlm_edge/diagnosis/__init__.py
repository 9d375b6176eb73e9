"""What `smol-edge doctor` finds: the machine, the installation, the models that are here and what would run them."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.errors import EngineError, SmolEdgeError
from smolvlm_edge.generation.width import choose_width
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import choose_engines, table_row
from smolvlm_edge.graphs.engines import EngineName, installed, open_engine
from smolvlm_edge.machine import installed_version, memory_bytes, processor_features, processor_name, processor_quota
from smolvlm_edge.store import DEMO, Source, bundles, demo_folder, find
from smolvlm_edge.store.lockfile import locked_models
from smolvlm_edge.store.verified import HOME_VARIABLE, home

PACKAGE = "smol-edge"
DEVELOPERS = {"dev", "packaging", "parity", "train"}
"""Extras that nobody misses who only uses this."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model on this machine."""

    name: str
    state: str
    engines: dict[str, dict[str, str]] | None
    """Half -> engine that `auto` takes, and why; None where nothing can run it, or there is nothing to run yet."""
    parallel: dict[str, int | str] | None = None
    """How many answers at once `--parallel auto` comes to, and why."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What is missing, and how to get it."""

    problem: str
    command: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything, as plain values."""

    system: str
    python: str
    processor: str
    features: list[str]
    processors: int | None
    threads: int
    memory_bytes: int | None
    free_memory_bytes: int | None
    versions: dict[str, str | None]
    engines: dict[str, str]
    """Those that are installed -> whether they work, or what to do about it."""
    auto: str
    """The row of the table of engines that fits this processor."""
    folders: dict[str, str]
    models: list[Found]
    fixes: list[Fix]


def examine() -> Diagnosis:
    """Look at everything; opens no connection and writes nothing."""
    from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import

    extras, row, (memory, free) = _requirements(), table_row(), memory_bytes()
    packages = [package for some in extras.values() for package in some]
    folders = {"bundles": bundles.bundles_home(), "checkpoints": hub.cache_folder()}
    troubles = {engine: _trouble(engine) for engine in installed()}
    return Diagnosis(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        processor=processor_name(),
        features=processor_features(),
        processors=os.cpu_count(),
        threads=available_cores(),
        memory_bytes=memory,
        free_memory_bytes=free,
        versions={name: installed_version(name) for name in (PACKAGE, *packages)},
        engines={engine: trouble or "works" for engine, trouble in troubles.items()},
        auto=f"where both engines can run a bundle, vision on {row.vision}, decoder on {row.decoder} "
        f"({row.processor}: {row.ground})",
        folders={purpose: _described(folder) for purpose, folder in folders.items()},
        models=[_bundle(DEMO, Bundle.open(demo_folder())), *_checkpoints(), *map(_made, bundles.made())],
        fixes=[*_missing(extras), *_bounds()],
    )


def _requirements() -> dict[str, list[str]]:
    """Extra -> the packages that it asks for; those of a plain installation under an empty name."""
    found: dict[str, list[str]] = {"": []}
    for requirement in requires(PACKAGE) or ():
        package, marker = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)", requirement)
        extra = marker[1] if marker else ""
        if package and package[0] != PACKAGE and extra not in DEVELOPERS:
            found.setdefault(extra, []).append(package[0])
    return found


def _trouble(engine: EngineName) -> str | None:
    """Why an installed engine cannot be used; None if it can."""
    try:
        open_engine(engine, threads=1)
    except EngineError as error:
        return str(error)
    return None


def _described(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} (not there yet)"
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{folder} ({sum(path.stat().st_size for path in files) / 1e6:,.0f} MB)"


def _checkpoints() -> list[Found]:
    """Those with a short name whose files are here."""
    found = []
    for model in locked_models().values():
        try:
            find(Source(model.alias, model.repo, model.revision), offline=True)
        except SmolEdgeError:
            continue
        found.append(Found(model.alias, "checkpoint downloaded", None))
    return found


def _made(bundle: Bundle) -> Found:
    aliases = {(each.repo, each.revision): each.alias for each in locked_models().values()}
    return _bundle(aliases.get((bundle.source, bundle.revision or ""), bundle.source), bundle)


def _bundle(name: str, bundle: Bundle) -> Found:
    state = f"{bundle.recipe['name']} for {' and '.join(bundle.targets)} in {bundle.folder}"
    try:
        choice = choose_engines(bundle)
        width = choose_width(bundle.model.text, choice.decoder.engine, "balanced", "auto")
        return Found(name, state, choice.to_dict(), {"count": width.count, "why": width.why})
    except EngineError as error:
        return Found(name, f"{state}: {error}", None)


def _missing(extras: dict[str, list[str]]) -> list[Fix]:
    fixes = []
    for extra, packages in extras.items():
        missing = [each for each in packages if installed_version(each) is None]
        wanted = f"{PACKAGE}[{extra}]" if extra else PACKAGE
        if missing:
            fixes.append(Fix(f"{extra or 'needed'}: {', '.join(missing)} not installed", f"pip install '{wanted}'"))
    return fixes


def _bounds() -> list[Fix]:
    fixes, quota = [], processor_quota()
    if quota is not None and quota < available_cores():
        fixes.append(Fix(f"this container may use the time of {quota:g} processors", f"--threads {max(1, int(quota))}"))
    parent = next(path for path in (home(), *home().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        fixes.append(Fix(f"{home()} cannot be written", f"{HOME_VARIABLE}=FOLDER"))
    return fixes
