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

from typing import ClassVar

LONGEST_MESSAGE = 1000
"""Characters."""


class SmolEdgeError(Exception):
    """Base of every error that smol-edge raises on purpose."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, message: str = "") -> None:
        """Take no more of a message than a terminal can show; what it ends with says what to do."""
        half = LONGEST_MESSAGE // 2
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[:half]} ... {message[-half:]}")


class RequestError(SmolEdgeError, ValueError):
    """What was asked for cannot be done as asked."""

    exit_code = 2
    status = 400


class BusyError(RequestError):
    """The model is answering somebody else, and nobody was to wait."""

    status = 429


class ContextError(RequestError):
    """A prompt is longer than the model's context."""


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
