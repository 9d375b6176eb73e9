"""Bundles that were made of a model's name: one folder per source, commit, recipe and target in the user's cache."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from smolvlm_edge.bundle import MANIFEST, Bundle, Target
from smolvlm_edge.errors import ExportError, ModelNotFoundError, RequestError
from smolvlm_edge.store import Source, default_model, fetch, resolve
from smolvlm_edge.store.verified import home

DEFAULT_QUANT = "int4"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen before a model can answer."""

    source: Source
    quant: str
    target: Target
    download_bytes: int
    folder: Path

    def __str__(self) -> str:
        fetched = f"download {max(1, round(self.download_bytes / 1e6)):,} MB and " if self.download_bytes else ""
        return f"{self.source.name} ({self.source.repo}): {fetched}export {self.quant} to {self.folder}"


def locate(
    model: str | Path | None,
    quant: str = DEFAULT_QUANT,
    target: Target = "onnx",
    *,
    offline: bool = False,
    agree: Callable[[Plan], bool] = lambda _: True,
    progress: Progress | None = None,
) -> Path:
    """The bundle that a name means, made if need be; arguments and errors as in `resolve` and `bundle_folder`."""
    found = resolve(model or default_model())
    if isinstance(found, Path):
        return found
    return bundle_folder(found, quant, target, offline=offline, agree=agree, progress=progress)


def bundle_folder(
    source: Source,
    quant: str,
    target: Target = "onnx",
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
        target: What it holds graphs for.
        offline: Open no connection.
        agree: Asked before anything is downloaded or exported.
        progress: As `export_checkpoint` takes it.

    Raises:
        RequestError: `agree` said no.
        ModelNotFoundError: Not here and `offline`, or no such model.
        DownloadError, IntegrityError, ExportError: As fetch and export raise them.
    """
    commit = _known_commit(source)
    if commit and (folder := _folder(source, commit, quant, target)) and (folder / MANIFEST).is_file():
        return folder
    plan = _plan(source, quant, target, offline=offline)
    if not agree(plan):
        raise RequestError(f"{source.name} was not fetched: agree, or pass --yes")
    return _make(plan, offline=offline, progress=progress)


def made() -> list[Bundle]:
    """Every bundle in the cache."""
    return [Bundle.open(path.parent) for path in sorted((home() / "bundles").glob(f"*/{MANIFEST}"))]


def remove(source: Source) -> int:
    """Delete every bundle that was made of a source; the bytes that this freed."""
    freed = 0
    for folder in (home() / "bundles").glob(f"{_stem(source)}@*"):
        freed += sum(path.stat().st_size for path in folder.iterdir())
        shutil.rmtree(folder)
    return freed


def _plan(source: Source, quant: str, target: Target, *, offline: bool) -> Plan:
    from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import

    commit = _known_commit(source)
    if commit and hub.cached(source.repo, source.revision):
        return Plan(source, quant, target, 0, _folder(source, commit, quant, target))
    if offline:
        raise ModelNotFoundError(f"{source.name} is not here: fetch it once with: smol-edge models pull {source.name}")
    missing = hub.missing(source.repo, source.revision)
    return Plan(source, quant, target, missing.size, _folder(source, missing.commit, quant, target))


def _make(plan: Plan, *, offline: bool, progress: Progress | None) -> Path:
    try:
        from smolvlm_edge.export import export_checkpoint  # noqa: PLC0415 - an extra
        from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExportError(f"making a bundle needs {error.name}: pip install 'smol-edge[export]'") from error
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.folder.with_name(f".{plan.folder.name}.lock")):
        if not (plan.folder / MANIFEST).is_file():
            for left in plan.folder.parent.glob(f".{plan.folder.name}.*.partial"):
                shutil.rmtree(left, ignore_errors=True)  # of a run that was killed: nobody else holds the lock
            checkpoint = fetch(plan.source, offline=offline)
            export_checkpoint(checkpoint, plan.folder, RECIPES[plan.quant], targets=[plan.target], progress=progress)
    return plan.folder


def _known_commit(source: Source) -> str | None:
    """The commit that a source means, if this machine knows it."""
    if source.locked:
        return source.locked.revision
    from smolvlm_edge.store import hub  # noqa: PLC0415

    snapshot = hub.cached(source.repo, source.revision)
    return snapshot.name if snapshot else None


def _folder(source: Source, commit: str, quant: str, target: Target) -> Path:
    suffix = "" if target == "onnx" else f"-{target}"
    return home() / "bundles" / f"{_stem(source)}@{commit[:12]}-{quant}-{_recipe_digest(quant)}{suffix}"


def _stem(source: Source) -> str:
    return source.repo.replace("/", "--")


def _recipe_digest(quant: str) -> str:
    """Tells a recipe from an older one of the same name: a better int4 is made anew."""
    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415 - only where bundles are made

    return hashlib.sha256(json.dumps(RECIPES[quant].to_dict(), sort_keys=True).encode()).hexdigest()[:8]
