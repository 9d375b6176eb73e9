"""Every error that smol-edge raises on purpose, the exit code of the command line and the HTTP status of a server.

    SmolEdgeError                         1  500   something went wrong while running
    ├── RequestError        (ValueError)  2  400   the request itself: empty prompt, option that makes no sense, ...
    │   ├── ContextError                  2  400   a prompt that is longer than the model's context
    │   └── BusyError                     2  429   the model has enough to answer just now: ask again later
    ├── ModelNotFoundError (LookupError)  3  404   no checkpoint or bundle at that place or of that name
    ├── IntegrityError                    4  500   a checkpoint or bundle that is damaged or contradicts itself
    ├── ImageError          (ValueError)  5  400   a picture that is missing, damaged, too large or no picture
    │   └── VideoError                    5  400   a video that is damaged, without pictures, or needs the extra [video]
    ├── UnsupportedModelError             1  500   a sound checkpoint of another architecture
    ├── EngineError       (RuntimeError)  1  500   the inference engine is missing or refused a graph
    ├── StoppedError                      1  499   an answer ended early because it was cancelled or took too long
    ├── IncompleteError                   1  422   an answer was cut off before it had the form that was asked for
    ├── DownloadError                     1  503   a model could not be fetched from the hub
    ├── ExportError                       1  500   the bundle could not be written
    └── PartialError                      6  500   some of many pictures failed; the others are done

Exit code 0 means success, 130 an interrupt (Ctrl-C), 143 a termination and 129 a closed terminal. Every message is one
line that says what is wrong and, where there is one, what to do next.

The statuses are those by which OpenAI's clients act: they ask again by themselves after 429 and from 500 on, and not
after the others – so an answer that was cancelled or took too long is 499, nginx's status for a client that has left.
A picture that cannot be read is 400, as OpenAI's own API has it.
"""

from os import PathLike
from typing import ClassVar, Self

LONGEST_MESSAGE = 1000
"""Characters."""


class SmolEdgeError(Exception):
    """Base of every error that smol-edge raises on purpose."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500
    path: PathLike[str] | str | None = None
    """The file that cannot be read or written, if it is about that."""
    extra: str | None = None
    """The extra of smol-edge that is not installed, if it is about that."""

    def __init__(self, message: str = "") -> None:
        """Take no more of a message than a terminal can show; what it ends with says what to do."""
        half = LONGEST_MESSAGE // 2
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:half]} ... {message[-half:]}")

    # Errors that many places raise word themselves, and keep their parts. These are constructors beside `__init__`,
    # not arguments of it: an error is made anew of its message when it goes to another process.

    @classmethod
    def of_file(cls, path: PathLike[str] | str, error: Exception, verb: str = "read") -> Self:
        """A file cannot be read (or written, ...), and why, as far as the system says it."""
        made = cls(f"{path} cannot be {verb}: {getattr(error, 'strerror', None) or error}")
        made.path = path
        return made

    @classmethod
    def of_missing(cls, what: str, package: str | None, extra: str) -> Self:
        """A package is not installed that something needs, and the extra that has it."""
        made = cls(f"{what} {package}: pip install 'smol-edge[{extra}]'")
        made.extra = extra
        return made


class RequestError(SmolEdgeError, ValueError):
    """What was asked for cannot be done as asked."""

    exit_code = 2
    status = 400


class BusyError(RequestError):
    """The model is answering somebody else, and nobody was to wait."""

    status = 429


class ContextError(RequestError):
    """A prompt is longer than the model's context."""

    context: int | None = None
    """Tokens that the context holds."""

    @classmethod
    def of(cls, length: str, context: int) -> Self:
        """The prompt takes so much, and the context holds so many tokens."""
        made = cls(
            f"the prompt takes {length} and the model's context holds {context}: "
            "use fewer pictures or --frames, a smaller --longest-edge, --detail auto or low, or a shorter text"
        )
        made.context = context
        return made


class ModelNotFoundError(SmolEdgeError, LookupError):
    """There is no checkpoint or bundle where one was named."""

    exit_code = 3
    status = 404


class IntegrityError(SmolEdgeError):
    """A checkpoint or bundle is damaged, incomplete or contradicts itself."""

    exit_code = 4


class ImageError(SmolEdgeError, ValueError):
    """A picture is missing, damaged, too large or of an unknown format."""

    exit_code = 5
    status = 400


class VideoError(ImageError):
    """A video is damaged or has no pictures, or what reads it is not installed."""


class UnsupportedModelError(SmolEdgeError):
    """The checkpoint is sound, but of an architecture or variant that is not supported."""


class EngineError(SmolEdgeError, RuntimeError):
    """The inference engine is missing, refused a graph or failed while running it."""


class StoppedError(SmolEdgeError):
    """An answer was cancelled, or took longer than its timeout; the model is free for the next one."""

    status = 499


class IncompleteError(SmolEdgeError):
    """An answer was cut off before it had the form that was asked for."""

    status = 422


class DownloadError(SmolEdgeError):
    """A model could not be fetched from the hub; what has arrived is kept for the next try."""

    status = 503


class ExportError(SmolEdgeError):
    """The bundle could not be written; no output was left behind."""


class PartialError(SmolEdgeError):
    """Some of many pictures failed; the answers about the others are written."""

    exit_code = 6
