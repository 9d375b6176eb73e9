"""A model's name -> a verified folder on this machine.

A name is a short one of models.lock, `owner/name` or `owner/name@revision` on the hub, or a folder; `demo` is the
demonstration model in the package. Cached first, network second: what is here is used, and nothing is contacted.

- `lockfile`: models.lock
- `hub`: files from the hub
- `verified`: hashes, computed once per file
- `bundles`: exported bundles in the user's cache folder
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from smolvlm_edge.bundle.formats import CHECKPOINT, INDEX_FILE, SINGLE_FILE, WEIGHTS, Kind
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import IntegrityError, ModelNotFoundError
from smolvlm_edge.store.lockfile import LockedModel, locked_at, locked_models
from smolvlm_edge.store.verified import check_file

DEMO = "demo"
DEFAULT_VARIABLE = "SMOL_EDGE_MODEL"
"""The environment variable that names the model where no other is named."""
COMMIT = re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile(  # as narrow as the hub itself: a name becomes a path
    r"(?![^@]*(?:--|\.git(?:@|$)))(?!.*\.\.)"
    r"(?P<repo>\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b)(@(?P<revision>\w[\w./-]*))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint on the hub."""

    name: str
    """As the user wrote it."""
    repo: str
    revision: str | None
    """Commit, branch or tag; None for the repository's main branch."""

    @property
    def commit(self) -> str | None:
        """The revision, if it is a commit, which never means anything else."""
        return self.revision if self.revision and COMMIT.fullmatch(self.revision) else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A source at one commit, and what of it is not on this machine yet."""

    source: Source
    kind: Kind
    commit: str
    folder: Path
    missing: Mapping[str, int]
    """Bytes of every file by its name."""

    def fetch(self) -> Path:
        """The folder, after what is missing was downloaded, and all of it compared with models.lock.

        Raises:
            ModelNotFoundError, UnsupportedModelError: It turns out that it is none, before its weights are downloaded.
            DownloadError: The hub cannot be reached or the disk is full.
            IntegrityError: A file is not the one that models.lock names.
        """
        from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import, and of no use to a local bundle

        if self.missing:
            small = [name for name in self.missing if not name.endswith(WEIGHTS)]
            hub.fetch_small(self.source.repo, self.source.revision, self.commit, small)
            self.kind.check_small(self.folder)
            for name in sorted(self.missing.keys() - small):
                hub.fetch_weights(self.source.repo, self.commit, name)
        verify(self)
        return self.folder


def default_model() -> str:
    """The model that answers when none is named."""
    return os.environ.get(DEFAULT_VARIABLE) or DEMO


def demo_folder() -> Path:
    """The bundle of the demonstration model."""
    folder = Path(str(files("smolvlm_edge.demo") / "bundle"))
    if not folder.is_dir():
        raise ModelNotFoundError("this installation has no demonstration model: name a bundle with --model")
    return folder


def resolve(name: str | Path) -> Path | Source:
    """A folder, or a checkpoint on the hub.

    Short names come first (`./demo` is a folder), then what exists on this machine, then `owner/name`.

    Raises:
        ModelNotFoundError: The name is none of these.
    """
    if isinstance(name, Path):
        return name
    if name == DEMO:
        return demo_folder()
    if locked := locked_models().get(name):
        return Source(name, locked.repo, locked.revision)
    if os.path.lexists(name):
        return Path(name)
    if name.startswith((".", "/", "~")) or not (match := REPOSITORY.fullmatch(name)):
        raise ModelNotFoundError(f"{name} is no folder and no model's name{_suggestion(name)}")
    return Source(name, match["repo"], match["revision"])


def find(source: Source, kind: Kind = CHECKPOINT, *, offline: bool = False, update: bool = False) -> Snapshot:
    """Look for a checkpoint (or an adapter) in the hub's cache and, if something of it is not there, on the hub.

    Args:
        source: A name.
        kind: What is looked for.
        offline: Open no connection; then nothing is missing.
        update: Ask the hub what a branch or tag means now, even if it was fetched before.

    Raises:
        ModelNotFoundError: Not in the cache and `offline`, no such repository, or none of that kind in it.
        UnsupportedModelError: The repository holds weights of a foreign format.
        DownloadError: The hub cannot be reached.
    """
    from smolvlm_edge.store import hub  # noqa: PLC0415

    offline = offline or hub.is_offline()
    commit = source.commit
    if commit is None and (offline or not update):
        commit = hub.commit_here(source.repo, source.revision)
    if commit is None and not offline:
        commit = hub.commit_there(source.repo, source.revision)
    if commit is not None:
        folder = hub.snapshot(source.repo, commit)
        wanted = _wanted(source, commit, kind, offline=offline)
        missing = {name: size for name, size in wanted.items() if not os.path.isfile(folder / name)}
        if missing and not offline:
            hub.commit_there(source.repo, commit)  # a refusal comes before anybody is asked whether to download
        if not (missing and offline):
            return Snapshot(source, kind, commit, folder, missing)
    if hub.is_offline():
        raise ModelNotFoundError(f"{source.name} is not in the cache, and HF_HUB_OFFLINE forbids fetching it")
    raise ModelNotFoundError(
        f"{source.name} is not in the cache: fetch it once with: smol-edge models pull {source.name}"
    )


def fetch(source: Source, kind: Kind = CHECKPOINT, *, offline: bool = False, update: bool = False) -> Path:
    """The folder of a checkpoint (or of an adapter) in the hub's cache; as `find` and `Snapshot.fetch`."""
    return find(source, kind, offline=offline, update=update).fetch()


def verify(snapshot: Snapshot, *, again: bool = False) -> int:
    """Compare a checkpoint's files with models.lock, whatever name it goes by; how many were compared by hash.

    Files that were read before and have not been touched since are read only if `again`.

    Raises:
        IntegrityError: A file is missing or another one, or there is one too many where every file is pinned by hash.
    """
    locked = locked_at(snapshot.commit)
    if locked is None or snapshot.kind is not CHECKPOINT:
        return 0
    expected, name = locked.files or {}, snapshot.source.name
    remedy = f"smol-edge models rm {name}, then smol-edge models pull {name}"
    for file, pinned in expected.items():
        check_file(snapshot.folder / file, pinned, missing=f"smol-edge models pull {name}", changed=remedy, again=again)
    for path in sorted(snapshot.folder.iterdir()) if locked.exact else ():
        if snapshot.kind.wants(path.name) and path.name not in expected:
            raise IntegrityError(f"{path} is no part of {locked.alias} in models.lock: {remedy}")
    return sum(file.sha256 is not None for file in expected.values())


def _wanted(source: Source, commit: str, kind: Kind, *, offline: bool) -> Mapping[str, int]:
    """The files to have of a commit, and their bytes."""
    from smolvlm_edge.store import hub  # noqa: PLC0415

    locked = locked_at(commit) if kind is CHECKPOINT else None
    if locked and locked.exact:
        return {name: file.size for name, file in (locked.files or {}).items()}
    listed = hub.listed_here(source.repo, commit)
    if listed is None and offline:
        return _least(hub.snapshot(source.repo, commit), kind, locked)
    if listed is None:
        listed = hub.listed_there(source.repo, commit)
    kind.check_names(source.repo, [name for name in listed if "/" not in name])
    wanted = {name: size for name, size in listed.items() if kind.wants(name)}
    for name in wanted:
        hub.check_name(name)
    return wanted


def _least(folder: Path, kind: Kind, locked: LockedModel | None) -> dict[str, int]:
    """What cannot be missing from a folder that another program filled, and whose listing is not here."""
    names = {*kind.needed, *((locked.files or {}) if locked else {})}
    if kind is CHECKPOINT and not os.path.isfile(folder / SINGLE_FILE):
        weight_map = read_json(folder / INDEX_FILE).get("weight_map") if os.path.isfile(folder / INDEX_FILE) else None
        names |= {*map(str, weight_map.values())} if isinstance(weight_map, dict) else {SINGLE_FILE}
    return dict.fromkeys(names, 0)


def _suggestion(name: str) -> str:
    near = get_close_matches(name, [DEMO, *locked_models()], n=1)
    return f": did you mean {near[0]}?" if near else " (see: smol-edge models list)"


__all__ = [
    "COMMIT",
    "DEFAULT_VARIABLE",
    "DEMO",
    "Snapshot",
    "Source",
    "default_model",
    "demo_folder",
    "fetch",
    "find",
    "resolve",
    "verify",
]
