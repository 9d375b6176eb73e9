"""Checkpoints from the Hugging Face hub, through its ordinary cache: the only importer of huggingface_hub.

The library resumes broken downloads, locks files against a second process and respects HF_HOME, HF_TOKEN,
HF_ENDPOINT and HF_HUB_OFFLINE. What this module adds is what it asks for, patience, and words for what went wrong.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from smolvlm_edge.config import read_json
from smolvlm_edge.errors import DownloadError, ModelNotFoundError, SmolEdgeError, UnsupportedModelError
from smolvlm_edge.store import CHECKPOINT_FILES, WEIGHTS

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from huggingface_hub import DryRunFileInfo, constants, hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars, tqdm

REFUSALS = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError)
TRIES = 4
FIRST_WAIT = 1.0  # seconds before the second try; each wait is twice the one before

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missing:
    """What a download would bring."""

    size: int
    """Bytes that are not in the cache yet."""
    commit: str


def cached(repo: str, revision: str | None, patterns: tuple[str, ...] = CHECKPOINT_FILES) -> Path | None:
    """The folder of a complete snapshot in the cache, or None; opens no connection."""
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*patterns], local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _has_weights(folder) else None


def incomplete(repo: str, revision: str | None) -> Path | None:
    """The folder of a snapshot that may be incomplete."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    with suppress(OSError):
        reference = folder / "refs" / (revision or "main")
        commit = reference.read_text().strip() if reference.is_file() else revision
        if commit and (folder / "snapshots" / commit).is_dir():
            return folder / "snapshots" / commit
    return None


def missing(repo: str, revision: str | None, patterns: tuple[str, ...] = CHECKPOINT_FILES) -> Missing:
    """Ask the hub what a download would bring.

    Raises:
        UnsupportedModelError: The repository has no safetensors weights.
    """
    with _in_words(repo, revision):
        files = _listing(repo, revision, patterns)
    return Missing(sum(file.file_size or 0 for file in files if file.will_download), files[0].commit_hash)


def download(repo: str, revision: str | None, patterns: tuple[str, ...] = CHECKPOINT_FILES) -> Path:
    """Bring a snapshot into the cache, or what is missing of it, and return its folder.

    Raises:
        ModelNotFoundError: No such repository or revision, or no right to read it.
        DownloadError: The hub cannot be reached or the disk is full.
        UnsupportedModelError: The repository has no safetensors weights.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    small = [pattern for pattern in patterns if not pattern.endswith(WEIGHTS)]
    with _in_words(repo, revision):
        listing = _listing(repo, revision, patterns)
        folder = Path(_patiently(lambda: snapshot_download(repo, revision=revision, allow_patterns=small)))
        for file in listing:
            if file.filename.endswith(WEIGHTS):
                # in this thread: snapshot_download's own would finish their files before an interrupt counts
                _patiently(partial(hf_hub_download, repo, file.filename, revision=folder.name))
    return folder


def _has_weights(folder: Path) -> bool:
    """Whether the weights are there, all shards of them; the library knows only of what it listed itself."""
    if (index := folder / "model.safetensors.index.json").is_file():
        weight_map = read_json(index).get("weight_map")
        return isinstance(weight_map, dict) and all((folder / str(name)).is_file() for name in weight_map.values())
    return any(folder.glob(f"*{WEIGHTS}"))


def _listing(repo: str, revision: str | None, patterns: tuple[str, ...]) -> list[DryRunFileInfo]:
    """The files that a download would bring or find in the cache; weights are among them."""
    files = _patiently(
        lambda: snapshot_download(repo, revision=revision, allow_patterns=[*patterns], dry_run=True, tqdm_class=_NoBar)
    )
    if not any(file.filename.endswith(WEIGHTS) for file in files):
        raise UnsupportedModelError(
            f"{repo} has no safetensors weights: pickled ones (.bin, .pt) can run programs and are not read; "
            "save the model with safe_serialization=True"
        )
    return files


def remove(repo: str, commit: str) -> int:
    """Delete a snapshot from the cache; the bytes that this freed."""
    if not Path(constants.HF_HUB_CACHE).is_dir():
        return 0
    cache = scan_cache_dir()
    known = {revision.commit_hash for each in cache.repos if each.repo_id == repo for revision in each.revisions}
    if commit not in known:
        return 0
    strategy = cache.delete_revisions(commit)
    strategy.execute()
    return int(strategy.expected_freed_size)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids connections."""
    return bool(constants.is_offline_mode())


class _NoBar(tqdm):
    """For a look that takes no time worth a bar."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]


def _patiently(call: Callable[[], T]) -> T:
    """Try again, a few times, what a busy or broken hub refused; the library does so only for some of it."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except OSError as error:
            if not _is_passing(error):
                raise
            time.sleep(FIRST_WAIT * 2**attempt)
    return call()


def _is_passing(error: BaseException) -> bool:
    status = _status(error)
    return status is not None and (status == 429 or status >= 500)  # a hub out of reach the library tries itself


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the library."""
    return next((int(each.response.status_code) for each in _causes(error) if isinstance(each, HfHubHTTPError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: a look without a download wraps what a download raises as it is."""
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def _in_words(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except SmolEdgeError:
        raise
    except OSError as error:  # the library's own are of this kind too
        raise _explained(error, repo, revision) from error
    except Exception as error:  # whatever the HTTP library raises, whose name changes from one version to the next
        if type(error).__module__.partition(".")[0].startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise _explained(error, repo, revision) from error
        raise


def _explained(error: Exception, repo: str, revision: str | None) -> SmolEdgeError:
    causes = list(_causes(error))
    refusal = next((each for each in causes if isinstance(each, REFUSALS)), None)
    if refusal or _status(error) in {401, 403}:
        return ModelNotFoundError(_refusal(refusal or error, repo, revision))
    if is_offline() or any(isinstance(each, OfflineModeIsEnabled) for each in causes):
        return ModelNotFoundError(f"{repo} is not in the cache, and HF_HUB_OFFLINE forbids fetching it")
    if any(isinstance(each, OSError) and each.errno in {errno.ENOSPC, errno.EDQUOT} for each in causes):
        return DownloadError(f"no space left in {constants.HF_HUB_CACHE}: make room and try again")
    return DownloadError(_trouble(repo, _status(error) or causes[-1]))


def _refusal(error: BaseException, repo: str, revision: str | None) -> str:
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError():
            return f"{repo} is gated: accept its terms on {page}, then log in with `hf auth login` or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"{repo} has no revision {revision}: see {page}/commits/main"
        case _:
            return f"{repo} does not exist or is private: check the name, log in with `hf auth login`, or set HF_TOKEN"


def _trouble(repo: str, cause: object) -> str:
    what = f"it answered with HTTP {cause}" if isinstance(cause, int) else " ".join(str(cause).split())[:200]
    return f"{repo} cannot be fetched from {constants.ENDPOINT} ({what}); what has arrived is kept: repeat the command"
