"""Bundles that were made of a model's name: one folder per source, commit, recipe and target in the user's cache."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from smolvlm_edge.bundle import MANIFEST, Bundle, Target, Wanted
from smolvlm_edge.errors import ExportError, IntegrityError, ModelNotFoundError, RequestError
from smolvlm_edge.store import DEMO, Snapshot, Source, default_model, demo_folder, find, resolve
from smolvlm_edge.store.lockfile import locked_models
from smolvlm_edge.store.verified import home

logger = logging.getLogger(__name__)

DEFAULT_QUANT = "int4"
DEFAULT_WANTED = Wanted()
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen before a model can answer."""

    snapshot: Snapshot
    quant: str
    targets: tuple[Target, ...]
    folder: Path

    def __str__(self) -> str:
        source, size = self.snapshot.source, sum(self.snapshot.missing.values())
        fetched = f"download {max(1, round(size / 1e6)):,} MB and " if size else ""
        return f"{source.name} ({source.repo}): {fetched}export {self.quant} to {self.folder}"


def locate(
    model: str | Path | None,
    quant: str = DEFAULT_QUANT,
    wanted: Wanted = DEFAULT_WANTED,
    *,
    offline: bool = False,
    agree: Callable[[Plan], bool] = lambda _: True,
    progress: Progress | None = None,
) -> Path:
    """The bundle that a name means, made if need be; arguments and errors as in `resolve` and `bundle_folder`."""
    found = resolve(model or default_model())
    if isinstance(found, Path):
        return found
    return bundle_folder(found, quant, wanted, offline=offline, agree=agree, progress=progress)


def bundle_folder(
    source: Source,
    quant: str,
    wanted: Wanted = DEFAULT_WANTED,
    *,
    offline: bool = False,
    agree: Callable[[Plan], bool] = lambda _: True,
    progress: Progress | None = None,
) -> Path:
    """The bundle of a model on the hub, made if it is not there yet.

    Two processes that want the same bundle do not make it twice: the second waits for the first.

    Args:
        source: The checkpoint.
        quant: A recipe's name.
        wanted: What it holds graphs for.
        offline: Open no connection.
        agree: Asked before anything is downloaded or exported.
        progress: As `export_checkpoint` takes it.

    Raises:
        RequestError: `agree` said no, or no recipe has that name.
        ModelNotFoundError: Not here and `offline`, or no such model.
        DownloadError, IntegrityError, ExportError: As fetch and export raise them.
    """
    _check_quant(quant)
    commit = _known_commit(source)
    if commit:
        folders = (_folder(source, commit, quant, targets) for targets in wanted.acceptable())
        if here := next(filter(_is_sound, folders), None):
            return here
    snapshot = find(source, offline=offline)
    plan = Plan(snapshot, quant, wanted.made_for, _folder(source, snapshot.commit, quant, wanted.made_for))
    if not agree(plan):
        raise RequestError(f"{source.name} was not fetched: agree, or pass --yes")
    return _make(plan, progress)


def made() -> list[Bundle]:
    """Every bundle in the cache, but for those that are damaged: a note says which."""
    found = []
    for path in sorted(bundles_home().glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(Bundle.open(path.parent))
        except IntegrityError:
            logger.warning("%s is damaged: it is made anew when it is next used", path.parent)
    return found


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A bundle on this machine that goes by a name."""

    name: str
    """As `SmolVLM.load` takes it, and behind a colon the number format unless it is the default one."""
    folder: Path


def local_models() -> list[LocalModel]:
    """Bundles that answer without a download: the demonstration model, and those made of named models.

    Of bundles of one name and number format the one that was made last counts.
    """
    aliases = {(model.repo, model.revision): model.alias for model in locked_models().values()}
    found = {DEMO: demo_folder()}
    for bundle in sorted(made(), key=lambda each: each.folder.stat().st_mtime):
        name = aliases.get((bundle.source, bundle.revision or ""), bundle.source)
        quant = bundle.recipe["name"]
        found[name if quant == DEFAULT_QUANT else f"{name}:{quant}"] = bundle.folder
    return [LocalModel(name, folder) for name, folder in found.items()]


def remove(source: Source) -> int:
    """Delete every bundle of a source, or what is left of one; the bytes that this freed."""
    commit = _known_commit(source)
    if commit is None and source.revision:
        return 0
    stem, freed = f"{_stem(source)}@{(commit or '')[:12]}", 0
    # the hidden ones are locks, and what was killed
    for path in [*bundles_home().glob(f"{stem}*"), *bundles_home().glob(f".{stem}*")]:
        freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        _delete(path)
    return freed


def _make(plan: Plan, progress: Progress | None) -> Path:
    try:
        from smolvlm_edge.export import export_checkpoint  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ExportError(f"making a bundle needs {error.name}: pip install 'smol-edge[export]'") from error
    from filelock import FileLock  # noqa: PLC0415 - of no use to a bundle that is named by its folder

    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415

    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.folder.with_name(f".{plan.folder.name}.lock")):
        if _is_sound(plan.folder):
            return plan.folder
        if plan.folder.exists():
            logger.warning("%s is damaged or incomplete: it is made anew", plan.folder)
            _delete(plan.folder)
        for left in plan.folder.parent.glob(f".{plan.folder.name}.*.partial"):
            _delete(left)  # of a run that was killed: nobody else holds the lock
        recipe = RECIPES[plan.quant]
        export_checkpoint(plan.snapshot.fetch(), plan.folder, recipe, targets=plan.targets, progress=progress)
    return plan.folder


def _is_sound(folder: Path) -> bool:
    try:
        Bundle.open(folder)
    except (ModelNotFoundError, IntegrityError):
        return False
    return True


def _delete(path: Path) -> None:
    """A folder vanishes at once: nobody finds half of a bundle."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    hidden = path.with_name(f".{path.name.lstrip('.')}.{uuid4().hex[:8]}.partial")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _known_commit(source: Source) -> str | None:
    """The commit that a source means, if this machine knows it."""
    if source.commit:
        return source.commit
    from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import

    return hub.commit_here(source.repo, source.revision)


def bundles_home() -> Path:
    """Where bundles of named models are kept."""
    return home() / "bundles"


def _folder(source: Source, commit: str, quant: str, targets: tuple[Target, ...]) -> Path:
    suffix = "" if targets == ("onnx",) else "-" + "-".join(targets)
    return bundles_home() / f"{_stem(source)}@{commit[:12]}-{quant}-{_recipe_digest(quant)}{suffix}"


def _stem(source: Source) -> str:
    return source.repo.replace("/", "--")


def _recipe_digest(quant: str) -> str:
    """Tells a recipe from an older one of the same name: a better int4 is made anew."""
    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415

    return hashlib.sha256(json.dumps(RECIPES[quant].to_dict(), sort_keys=True).encode()).hexdigest()[:8]


def _check_quant(quant: str) -> None:
    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415 - of no use to a bundle that is named by its folder

    if quant not in RECIPES:
        raise RequestError(f"quant must be one of {', '.join(RECIPES)}, not {quant!r}")
