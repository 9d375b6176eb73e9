"""The library's errors, several lines each -> ours of one line, which say what to do."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from smolvlm_edge.errors import DownloadError, ModelNotFoundError, RequestError, SmolEdgeError

REFUSALS = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError)


@contextmanager
def in_words(repo: str, revision: str | None) -> Iterator[None]:
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
        f"{repo} cannot be fetched: {endpoint()} does not answer as a model hub does; look at it in a browser"
    )


def _explained(error: Exception, repo: str, revision: str | None) -> SmolEdgeError:
    chain = list(causes(error))
    refusal = next((each for each in chain if isinstance(each, REFUSALS)), None)
    if refusal or status_of(error) in {401, 403}:
        return ModelNotFoundError(_refusal(refusal or error, repo, revision))
    if any(isinstance(each, OSError) and each.errno in {errno.ENOSPC, errno.EDQUOT} for each in chain):
        return DownloadError(f"no space left in {constants.HF_HUB_CACHE}: make room and try again")
    return DownloadError(_trouble(repo, status_of(error) or chain[-1]))


def _refusal(error: BaseException, repo: str, revision: str | None) -> str:
    page = f"{endpoint()}/{repo}"
    match error:
        case GatedRepoError():
            return f"{repo} is gated: accept its terms on {page}, then log in with `hf auth login` or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"{repo} has no revision {revision}: see {page}/commits/main"
        case _:
            return f"{repo} does not exist or is private: check the name, log in with `hf auth login`, or set HF_TOKEN"


def _trouble(repo: str, cause: object) -> str:
    what = f"it answered with HTTP {cause}" if isinstance(cause, int) else _without_passwords(str(cause))[:200]
    return f"{repo} cannot be fetched from {endpoint()} ({what}); what has arrived is kept: repeat the command"


def endpoint() -> str:
    """The hub's address, fit to be shown."""
    return _without_passwords(str(constants.ENDPOINT))


def _without_passwords(text: str) -> str:
    """A mirror's address may hold a name and a password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", " ".join(text.split()))


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the library."""
    return next((int(each.response.status_code) for each in causes(error) if isinstance(each, HfHubHTTPError)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
