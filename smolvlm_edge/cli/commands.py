"""All subcommands, and what becomes of their errors."""

import logging
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from smolvlm_edge.cli import heed_signals
from smolvlm_edge.cli.bench import bench
from smolvlm_edge.cli.chat import chat
from smolvlm_edge.cli.convert import convert
from smolvlm_edge.cli.describe import describe
from smolvlm_edge.cli.doctor import doctor
from smolvlm_edge.cli.eval import evaluate
from smolvlm_edge.cli.export import export
from smolvlm_edge.cli.info import info
from smolvlm_edge.cli.lines import one_line
from smolvlm_edge.cli.models import models
from smolvlm_edge.cli.quality import quality
from smolvlm_edge.cli.run import run
from smolvlm_edge.cli.serve import serve
from smolvlm_edge.errors import SmolEdgeError

INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"smol-edge {version('smol-edge')}")
        raise typer.Exit


app = typer.Typer(
    epilog="Exit codes: 0 ok, 1 runtime error, 2 usage, 3 no model, 4 damaged model, 5 bad picture or video, "
    "6 some of many pictures failed, 130 interrupt.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def common(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit; of engines, `smol-edge doctor` tells.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Export SmolVLM-type checkpoints without torch, and run them on a plain CPU."""


app.command()(export)
app.command()(run)
app.command()(chat)
app.command()(describe)
app.command()(convert)
app.command()(serve)
app.command("eval")(evaluate)
app.command()(quality)
app.command()(info)
app.command()(bench)
app.command()(doctor)
app.add_typer(models, name="models")


def command() -> NoReturn:
    """What `main` runs once this is imported."""
    heed_signals(_end)
    _show_notes()
    if sys.stdout is None:
        sys.exit(_failed("stdout is closed: there is nothing to print to"))
    _set_encodings()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(_ended())
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            _say("interrupted")
        raise
    except Exception as error:
        if _signals:  # it came in the middle of something that made an error of its own of it
            sys.exit(_ended())
        match error:
            case SmolEdgeError():
                sys.exit(_failed(str(error), error.exit_code))
            case OSError():
                sys.exit(_unwritable(error))
            case MemoryError() | RecursionError():
                sys.exit(_failed("out of memory: close other programs, or take less at once"))
            case RuntimeError(__context__=OSError() as cause) if "Symlink loop" in str(error):  # until Python 3.13
                sys.exit(_unwritable(cause))
            case RuntimeError() if "can't start new thread" in str(error):
                sys.exit(_failed("the system gives this process no more threads: raise its limit, or --threads 1"))
        raise
    sys.exit(0)


def _set_encodings() -> None:
    """A terminal that cannot show a character shows ? instead; pipes and files get UTF-8, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            machine = stream is sys.stdout and not stream.isatty()
            stream.reconfigure(encoding="utf-8" if machine else None, errors="replace")


def _unwritable(error: OSError) -> int:
    """The system refused something, most likely stdout: give up on it, so that the exit does not try again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _failed(f"{error.filename or 'output'}: {error.strerror or error}")


def _failed(message: str, exit_code: int = 1) -> int:
    _say(f"error: {one_line(message)}")
    return exit_code


_signals: list[int] = []
"""Those that came."""


def _end(number: int, _: object) -> NoReturn:
    """Ctrl-C, a polite kill or a terminal that is closed unwind like any error: an export cleans up after itself."""
    _signals.append(number)
    if number != signal.SIGINT:
        sys.exit(128 + number)
    raise KeyboardInterrupt


def _ended() -> int:
    if _signals and _signals[-1] != signal.SIGINT:
        return 128 + _signals[-1]
    _say("interrupted")
    return INTERRUPTED


def _show_notes() -> None:
    """What the library logs appears as a line on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Note("note: %(message)s"))
    logging.getLogger("smolvlm_edge").addHandler(handler)


class _Note(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
