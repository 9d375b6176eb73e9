"""Files from the Hugging Face hub, in its ordinary cache: this folder alone imports huggingface_hub.

The library keeps the cache, locks files against a second process and respects HF_HOME, HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE. What this adds is that a download goes on where another one was stopped (`downloads`), patience
(`retries`), and words for what went wrong (`wording`). Every name of a revision is turned into a commit once; all that
follows asks for that commit.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from smolvlm_edge.errors import DownloadError
from smolvlm_edge.store import COMMIT, listings

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import huggingface_hub
from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from smolvlm_edge.store.hub.cache import cache_folder, repository, snapshot
from smolvlm_edge.store.hub.downloads import SMALL_BYTES, WEIGHT_BYTES, check_name, fetch, no_bar, remove_part
from smolvlm_edge.store.hub.retries import within
from smolvlm_edge.store.hub.wording import endpoint, in_words

__all__ = [
    "cache_folder",
    "check_name",
    "commit_here",
    "commit_there",
    "fetch_small",
    "fetch_weights",
    "is_offline",
    "listed_here",
    "listed_there",
    "remove",
    "snapshot",
]

KEEPS_LISTINGS = hasattr(huggingface_hub, "get_cached_repo_tree")  # from 2.0 on
MAIN = constants.DEFAULT_REVISION
MOST_LISTED = 10_000


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids connections."""
    return bool(constants.HF_HUB_OFFLINE)


def commit_here(repo: str, revision: str | None) -> str | None:
    """The commit that a branch or tag meant when it was last fetched; opens no connection."""
    with suppress(OSError, ValueError):
        commit = (repository(repo) / "refs" / (revision or MAIN)).read_text(encoding="utf-8").strip()
        return commit if COMMIT.fullmatch(commit) else None
    return None


def commit_there(repo: str, revision: str | None) -> str:
    """The commit that a branch or tag means now.

    Raises:
        ModelNotFoundError: No such repository or revision, or no right to read it.
        DownloadError: The hub cannot be reached.
    """
    with in_words(repo, revision):
        commit = str(within(lambda: HfApi().model_info(repo, revision=revision).sha))
        if not COMMIT.fullmatch(commit):  # it becomes the name of a folder
            raise ValueError(commit)
        return commit


def listed_here(repo: str, commit: str) -> dict[str, int] | None:
    """The files of a commit and their bytes, if they have been listed before; opens no connection."""
    if not KEEPS_LISTINGS:
        return listings.kept(repository(repo), commit)
    with suppress(huggingface_hub.errors.CachedRepoTreeNotFoundError):
        return {file.path: file.size for file in huggingface_hub.get_cached_repo_tree(repo, revision=commit)}
    return None


def listed_there(repo: str, commit: str) -> dict[str, int]:
    """The files at the top of a repository and their bytes; raises as `commit_there`."""
    commit_there(repo, commit)  # says at once that there is no hub; the listing would try for half a minute
    with in_words(repo, commit):
        if snapshot(repo, commit).is_dir():  # another program made it: let it be listed, and the listing kept
            _fetch_quietly(repo, commit, [])
            if listed := listed_here(repo, commit):
                return listed
        return _listing(repo, commit)


def fetch_small(repo: str, revision: str | None, commit: str, names: Sequence[str]) -> None:
    """Bring small files of a commit into the cache, and remember what the revision means.

    Raises:
        ModelNotFoundError: No such commit, or no right to read it.
        DownloadError: The hub cannot be reached, or the disk is full.
    """
    with in_words(repo, commit):
        # also where no name is left: the listing is kept, which tells later whether a snapshot is complete
        _fetch_quietly(repo, commit, [])
        for name in names:
            fetch(repo, commit, name, SMALL_BYTES)
        _remember(repo, revision or MAIN, commit)


def fetch_weights(repo: str, commit: str, name: str) -> None:
    """Bring a large file into the cache, or go on where that was stopped; raises as `fetch_small`.

    The library would begin again: it writes to a file of a new name each time, and deletes it when it is stopped.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    with in_words(repo, commit):
        fetch(repo, commit, name, WEIGHT_BYTES)


def remove(repo: str, commit: str) -> int:
    """Delete a snapshot from the cache, and parts of downloads that were stopped; the bytes that this freed."""
    freed = sum(map(remove_part, (repository(repo) / "blobs").glob("*.part")))
    if not snapshot(repo, commit).is_dir():
        return freed
    strategy = scan_cache_dir().delete_revisions(commit)
    strategy.execute()
    return freed + int(strategy.expected_freed_size)


def _listing(repo: str, commit: str) -> dict[str, int]:
    tree = within(lambda: list(islice(HfApi().list_repo_tree(repo, revision=commit), MOST_LISTED + 1)))
    if len(tree) > MOST_LISTED:
        raise DownloadError(f"{endpoint()} lists more than {MOST_LISTED:,} files of {repo}: no such model is known")
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def _fetch_quietly(repo: str, commit: str, names: Sequence[str]) -> Path:
    with no_bar():
        folder = Path(within(lambda: snapshot_download(repo, revision=commit, allow_patterns=[*names])))
    if not KEEPS_LISTINGS and listed_here(repo, commit) is None:
        listings.keep(repository(repo), commit, _listing(repo, commit))
    return folder


def _remember(repo: str, revision: str, commit: str) -> None:
    """As the library does; it would ask the hub again, which may name another commit by now."""
    if revision == commit:
        return
    reference = repository(repo) / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    staged = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    staged.write_text(commit, encoding="utf-8")
    staged.replace(reference)
