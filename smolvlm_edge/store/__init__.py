"""A model's name -> a verified folder on this machine.

A name is a short one of models.lock, `owner/name` or `owner/name@revision` on the hub, or a folder; `demo` is the
demonstration model in the package. Cached first, network second: what is here is used, and nothing is contacted.

- `lockfile`: models.lock
- `hub`: checkpoints from the hub
- `verified`: hashes, computed once per file
- `bundles`: exported bundles in the user's cache folder
"""

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from smolvlm_edge.bundle import TOKENIZER_FILES
from smolvlm_edge.errors import ModelNotFoundError
from smolvlm_edge.store.lockfile import LockedModel, locked_models
from smolvlm_edge.store.verified import check_file

DEMO = "demo"
DEFAULT_VARIABLE = "SMOL_EDGE_MODEL"
"""The environment variable that names the model where no other is named."""
WEIGHTS = ".safetensors"
CHECKPOINT_FILES = (*TOKENIZER_FILES, f"model{WEIGHTS}", f"model{WEIGHTS}.index.json", f"model-*-of-*{WEIGHTS}")
"""What is fetched of a checkpoint's repository: never a pickle, which could run programs."""
ADAPTER_FILES = (*TOKENIZER_FILES, "adapter_config.json", f"adapter_model{WEIGHTS}")
REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint on the hub."""

    name: str
    """As the user wrote it."""
    repo: str
    revision: str | None
    """Commit, branch or tag; None for the repository's main branch."""
    locked: LockedModel | None = None


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
        return Source(name, locked.repo, locked.revision, locked)
    if os.path.lexists(name):
        return Path(name)
    if name.startswith((".", "/", "~")) or not (match := REPOSITORY.fullmatch(name)):
        raise ModelNotFoundError(f"{name} is no folder and no model's name{_suggestion(name)}")
    return Source(name, match["repo"], match["revision"])


def fetch(source: Source, patterns: tuple[str, ...] = CHECKPOINT_FILES, *, offline: bool = False) -> Path:
    """The folder of a checkpoint (or of an adapter, with ADAPTER_FILES) in the hub's cache, as models.lock says.

    Raises:
        ModelNotFoundError: Not in the cache and `offline`, or no such repository.
        DownloadError: The hub cannot be reached or the disk is full.
        IntegrityError: A file is not the one that models.lock names.
    """
    from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import, and of no use to a local bundle

    folder = hub.cached(source.repo, source.revision, patterns)
    if folder is None and offline:
        raise ModelNotFoundError(
            f"{source.name} is not in the cache: fetch it once with: smol-edge models pull {source.name}"
        )
    folder = folder or hub.download(source.repo, source.revision, patterns)
    verify(source, folder)
    return folder


def verify(source: Source, folder: Path) -> int:
    """Compare a checkpoint's files with models.lock; how many were compared by hash.

    Raises:
        IntegrityError: A file is missing or another one.
    """
    expected = (source.locked.files if source.locked else None) or {}
    for name, file in expected.items():
        check_file(folder / name, file, hint=f"smol-edge models rm {source.name}, then pull it again")
    return sum(file.sha256 is not None for file in expected.values())


def _suggestion(name: str) -> str:
    near = get_close_matches(name, [DEMO, *locked_models()], n=1)
    return f": did you mean {near[0]}?" if near else " (see: smol-edge models list)"


__all__ = [
    "ADAPTER_FILES",
    "CHECKPOINT_FILES",
    "DEFAULT_VARIABLE",
    "DEMO",
    "WEIGHTS",
    "Source",
    "default_model",
    "demo_folder",
    "fetch",
    "resolve",
    "verify",
]
