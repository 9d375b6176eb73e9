"""Files from the Hugging Face hub, in its ordinary cache: the only importer of huggingface_hub.

The library keeps the cache, locks files against a second process and respects HF_HOME, HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE. What this module adds is that a download goes on where another one was stopped, patience, and words for
what went wrong. Every name of a revision is turned into a commit once; all that follows asks for that commit.
"""

import errno
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import BytesIO
from itertools import islice
from json import JSONDecodeError
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, local
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from smolvlm_edge.bundle import sha256
from smolvlm_edge.errors import DownloadError, ModelNotFoundError, RequestError, SmolEdgeError
from smolvlm_edge.store import COMMIT, listings

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import huggingface_hub
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_url,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import _create_symlink, http_get, repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

KEEPS_LISTINGS = hasattr(huggingface_hub, "get_cached_repo_tree")  # from 2.0 on
REFUSALS = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError)
MAIN = constants.DEFAULT_REVISION
TRIES = 4
PATIENCE = float(os.environ.get("SMOL_EDGE_HUB_TIMEOUT") or 120)
"""Seconds for one answer of the hub that is no file, with all that is tried again."""
MOST_LISTED = 10_000
SMALL_BYTES, WEIGHT_BYTES = 64 << 20, 1 << 38
"""The most that a file may have, and of the small ones also an answer that is no file."""
SHA256 = re.compile("[0-9a-f]{64}")
FIRST_WAIT = 1.0  # seconds before the second try; each wait is twice the one before

T = TypeVar("T")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids connections."""
    return bool(constants.HF_HUB_OFFLINE)


def cache_folder() -> Path:
    """Where checkpoints are kept."""
    return Path(constants.HF_HUB_CACHE)


def snapshot(repo: str, commit: str) -> Path:
    """The folder of a commit in the cache, whether or not it is there."""
    return _cache(repo) / "snapshots" / commit


def commit_here(repo: str, revision: str | None) -> str | None:
    """The commit that a branch or tag meant when it was last fetched; opens no connection."""
    with suppress(OSError, ValueError):
        commit = (_cache(repo) / "refs" / (revision or MAIN)).read_text(encoding="utf-8").strip()
        return commit if COMMIT.fullmatch(commit) else None
    return None


def commit_there(repo: str, revision: str | None) -> str:
    """The commit that a branch or tag means now.

    Raises:
        ModelNotFoundError: No such repository or revision, or no right to read it.
        DownloadError: The hub cannot be reached.
    """
    with _in_words(repo, revision):
        commit = str(_within(lambda: HfApi().model_info(repo, revision=revision).sha))
        if not COMMIT.fullmatch(commit):  # it becomes the name of a folder
            raise ValueError(commit)
        return commit


def listed_here(repo: str, commit: str) -> dict[str, int] | None:
    """The files of a commit and their bytes, if they have been listed before; opens no connection."""
    if not KEEPS_LISTINGS:
        return listings.kept(_cache(repo), commit)
    with suppress(huggingface_hub.errors.CachedRepoTreeNotFoundError):
        return {file.path: file.size for file in huggingface_hub.get_cached_repo_tree(repo, revision=commit)}
    return None


def listed_there(repo: str, commit: str) -> dict[str, int]:
    """The files at the top of a repository and their bytes; raises as `commit_there`."""
    commit_there(repo, commit)  # says at once that there is no hub; the listing would try for half a minute
    with _in_words(repo, commit):
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
    with _in_words(repo, commit):
        # also where no name is left: the listing is kept, which tells later whether a snapshot is complete
        _fetch_quietly(repo, commit, [])
        for name in names:
            _fetch(repo, commit, name, SMALL_BYTES)
        _remember(repo, revision or MAIN, commit)


def fetch_weights(repo: str, commit: str, name: str) -> None:
    """Bring a large file into the cache, or go on where that was stopped; raises as `fetch_small`.

    The library would begin again: it writes to a file of a new name each time, and deletes it when it is stopped.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    with _in_words(repo, commit):
        _fetch(repo, commit, name, WEIGHT_BYTES)


def _fetch(repo: str, commit: str, name: str, limit: int) -> None:
    """Bring one file into the cache as the library would, but believe nothing of what the hub says of it.

    The library takes the ETag for a path, whatever it holds, and asks for it anew with every call.
    """
    check_name(name)
    url = hf_hub_url(repo, name, revision=commit)
    found = _within(lambda: get_hf_file_metadata(url))
    if found.size is not None and found.size > limit:
        raise DownloadError(f"{repo}: {name} has {found.size:,} bytes, and {limit:,} are the most that it may have")
    blob = _cache(repo) / "blobs" / _blob_name(found.etag)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock(blob)):
        if not blob.exists():
            _patiently(partial(_go_on, url, name, blob, found.size, limit))
    pointer = snapshot(repo, commit) / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    _create_symlink(str(blob), str(pointer), new_blob=False)


def check_name(name: str) -> None:
    """A file's name in a listing comes from the network too, and becomes a path.

    Raises:
        DownloadError: It is no plain name.
    """
    if Path(name).name != name or name in {"", ".", ".."} or "\\" in name or not name.isprintable():
        raise DownloadError(f"the hub lists a file of the name {name[:80]!r}, which is none")


def remove(repo: str, commit: str) -> int:
    """Delete a snapshot from the cache, and parts of downloads that were stopped; the bytes that this freed."""
    freed = sum(map(_remove_part, (_cache(repo) / "blobs").glob("*.part")))
    if not snapshot(repo, commit).is_dir():
        return freed
    strategy = scan_cache_dir().delete_revisions(commit)
    strategy.execute()
    return freed + int(strategy.expected_freed_size)


def _cache(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))


def _lock(blob: Path) -> Path:
    """The lock that the library itself takes before it downloads that blob."""
    folder = Path(constants.HF_HUB_CACHE, ".locks", blob.parents[1].name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{blob.name}.lock"


def _listing(repo: str, commit: str) -> dict[str, int]:
    tree = _within(lambda: list(islice(HfApi().list_repo_tree(repo, revision=commit), MOST_LISTED + 1)))
    if len(tree) > MOST_LISTED:
        raise DownloadError(f"{_endpoint()} lists more than {MOST_LISTED:,} files of {repo}: no such model is known")
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


@contextmanager
def _no_bar() -> Iterator[None]:
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _fetch_quietly(repo: str, commit: str, names: Sequence[str]) -> Path:
    """Without a bar, for what takes no time worth one."""
    with _no_bar():
        folder = Path(_within(lambda: snapshot_download(repo, revision=commit, allow_patterns=[*names])))
    if not KEEPS_LISTINGS and listed_here(repo, commit) is None:
        listings.keep(_cache(repo), commit, _listing(repo, commit))
    return folder


def _remember(repo: str, revision: str, commit: str) -> None:
    """As the library does; it would ask the hub again, which may name another commit by now."""
    if revision == commit:
        return
    reference = _cache(repo) / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    staged = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    staged.write_text(commit, encoding="utf-8")
    staged.replace(reference)


def _blob_name(etag: str | None) -> str:
    """A blob's name in the cache comes from the network."""
    if etag is None or not re.fullmatch(r"[\w-]{1,128}", etag, re.ASCII):
        raise DownloadError(f"the hub gave a file no usable ETag ({str(etag)[:80]!r})")
    return etag


class _Bounded:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: BinaryIO, limit: int, name: str) -> None:
        self._file, self._limit, self._name = file, limit, name

    def write(self, data: bytes) -> int:
        """Append, as long as there is room."""
        if self._file.tell() + len(data) > self._limit:
            raise DownloadError(f"{self._name} goes on beyond the {self._limit:,} bytes that it may have")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _go_on(url: str, name: str, blob: Path, size: int | None, limit: int) -> None:
    part = blob.with_name(f"{blob.name}.part")
    with part.open("ab") as file:
        if size is None or file.tell() > size:  # no telling whether it is a part of that file
            file.truncate(0)
            file.seek(0)
        # the HTTP library sends the token to the hub and not on to where that redirects
        headers, bounded = build_hf_headers(), _Bounded(file, limit if size is None else size, name)
        with _no_bar() if limit == SMALL_BYTES else nullcontext():
            http_get(
                url,
                bounded,  # type: ignore[arg-type]  # as much of a file as is used
                resume_size=file.tell(),
                expected_size=size,
                headers=headers,
                displayed_filename=name,
            )
    if SHA256.fullmatch(blob.name) and sha256(part) != blob.name:  # stopped hard once, or another file
        part.unlink()
        raise DownloadError(f"{name} arrived damaged: repeat the command")
    part.replace(blob)


def _remove_part(part: Path) -> int:
    size = part.stat().st_size
    try:
        with FileLock(_lock(part.with_suffix("")), timeout=0):
            part.unlink()
    except Timeout:  # another process is at it
        return 0
    return size


def _within(call: Callable[[], T]) -> T:
    """Ask patiently, but not for ever: a hub may accept and never answer, or never come to an end.

    Raises:
        DownloadError: No answer within `PATIENCE`.
    """
    answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def ask() -> None:
        _asking.bounded = True
        try:
            _bound(get_session())
            answers.put((_patiently(call), None))
        except BaseException as error:  # noqa: BLE001 - raised where it was asked
            answers.put((None, error))

    Thread(target=ask, daemon=True).start()
    try:
        answer, error = answers.get(timeout=PATIENCE)
    except Empty:
        raise DownloadError(f"{_endpoint()} did not answer within {PATIENCE:g} seconds: repeat the command") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # there is no error, so it is there


_asking = local()


def _bound(session: Any) -> None:
    """Have the library's client, of httpx or before 1.0 of requests, read answers through `_read`."""
    hooks = (session.event_hooks if hasattr(session, "event_hooks") else session.hooks)["response"]
    if _read not in hooks:
        hooks.append(_read)


def _read(response: Any, *_: object, **__: object) -> None:
    """Read what comes to a thread that asks for no file: the library would read without end, and keep it all.

    Raises:
        DownloadError: It is more than anybody has to say.
    """
    if not getattr(_asking, "bounded", False):
        return
    kept = BytesIO()
    bounded = _Bounded(kept, SMALL_BYTES, f"what {_endpoint()} answers")
    for piece in response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(1 << 16):
        bounded.write(piece)
    response._content = kept.getvalue()  # where both kinds look first


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
    """A hub out of reach the library tries itself; a connection that breaks in a file's middle only from 1.0 on."""
    status = _status(error)
    if status is None:
        return type(error).__name__ == "ChunkedEncodingError"  # of requests, which later versions do without
    return status == 429 or status >= 500


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of the library."""
    return next((int(each.response.status_code) for each in _causes(error) if isinstance(each, HfHubHTTPError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def _in_words(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the library's errors into ours, one line in place of its own several."""
    library = logging.getLogger("huggingface_hub")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        _check_token()
        yield
    except SmolEdgeError:
        raise
    except JSONDecodeError as error:  # that of requests, in the library before 1.0, is an OSError too
        raise _no_hub(repo) from error
    except OSError as error:  # the library's own are of this kind too
        raise _explained(error, repo, revision) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _no_hub(repo) from error
    except Exception as error:  # whatever the HTTP library raises, whose name changes from one version to the next
        if type(error).__module__.partition(".")[0].startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise _explained(error, repo, revision) from error
        raise
    finally:
        library.setLevel(level)


def _check_token() -> None:
    """A header cannot hold everything, and an error of the HTTP library would show the token."""
    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise RequestError("the hub's token (HF_TOKEN, or the one of `hf auth login`) holds a character that none has")


def _no_hub(repo: str) -> DownloadError:
    """JSON was asked for: a captive portal sends its own page."""
    return DownloadError(
        f"{repo} cannot be fetched: {_endpoint()} does not answer as a model hub does; look at it in a browser"
    )


def _explained(error: Exception, repo: str, revision: str | None) -> SmolEdgeError:
    causes = list(_causes(error))
    refusal = next((each for each in causes if isinstance(each, REFUSALS)), None)
    if refusal or _status(error) in {401, 403}:
        return ModelNotFoundError(_refusal(refusal or error, repo, revision))
    if any(isinstance(each, OSError) and each.errno in {errno.ENOSPC, errno.EDQUOT} for each in causes):
        return DownloadError(f"no space left in {constants.HF_HUB_CACHE}: make room and try again")
    return DownloadError(_trouble(repo, _status(error) or causes[-1]))


def _refusal(error: BaseException, repo: str, revision: str | None) -> str:
    page = f"{_endpoint()}/{repo}"
    match error:
        case GatedRepoError():
            return f"{repo} is gated: accept its terms on {page}, then log in with `hf auth login` or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"{repo} has no revision {revision}: see {page}/commits/main"
        case _:
            return f"{repo} does not exist or is private: check the name, log in with `hf auth login`, or set HF_TOKEN"


def _trouble(repo: str, cause: object) -> str:
    what = f"it answered with HTTP {cause}" if isinstance(cause, int) else _without_passwords(str(cause))[:200]
    return f"{repo} cannot be fetched from {_endpoint()} ({what}); what has arrived is kept: repeat the command"


def _endpoint() -> str:
    return _without_passwords(str(constants.ENDPOINT))


def _without_passwords(text: str) -> str:
    """A mirror's address may hold a name and a password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", " ".join(text.split()))
