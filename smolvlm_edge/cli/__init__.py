"""The `smol-edge` command: one file per subcommand, each of which parses, calls and prints."""

import logging
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

import typer

from smolvlm_edge.cli.bench import bench
from smolvlm_edge.cli.chat import chat
from smolvlm_edge.cli.convert import convert
from smolvlm_edge.cli.describe import describe
from smolvlm_edge.cli.doctor import doctor
from smolvlm_edge.cli.eval import evaluate
from smolvlm_edge.cli.export import export
from smolvlm_edge.cli.info import info
from smolvlm_edge.cli.models import models
from smolvlm_edge.cli.quality import quality
from smolvlm_edge.cli.run import run
from smolvlm_edge.cli.serve import serve
from smolvlm_edge.errors import SmolEdgeError

INTERRUPTED = 130

app = typer.Typer(
    help="Export SmolVLM-type checkpoints without torch, and run them on a plain CPU.",
    epilog="Exit codes: 0 ok, 1 runtime error, 2 usage, 3 no model, 4 damaged model, 5 bad picture or video, "
    "6 some of many pictures failed, 130 interrupt.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(export)
app.command()(run)
app.command()(chat)
app.command()(describe)
app.command()(serve)
app.command()(convert)
app.command("eval")(evaluate)
app.command()(quality)
app.command()(info)
app.command()(bench)
app.command()(doctor)
app.add_typer(models, name="models")


def main() -> NoReturn:
    """Run the command line; every foreseen error is one line on stderr and a documented exit code."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has one of them; nohup wants the other ignored
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    _show_notes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a character shows ? instead
            stream.reconfigure(errors="replace")
    try:
        app()
    except SmolEdgeError as error:
        _say(f"error: {' '.join(str(error).split())}")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.exit(_unforeseen(error))
    except KeyboardInterrupt:
        sys.exit(_interrupted())
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            _interrupted()
        raise
    sys.exit(0)


def _unforeseen(error: OSError) -> int:
    """The system refused something, most likely stdout: give up on it, so that the exit does not try again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _say(f"error: {error.filename or 'output'}: {error.strerror or error}")
    return 1


def _interrupted() -> int:
    _say("interrupted")
    return INTERRUPTED


def _terminate(number: int, _: object) -> NoReturn:
    """A polite kill, or a terminal that is closed, unwinds like any error: an export cleans up after itself."""
    sys.exit(128 + number)


def _show_notes() -> None:
    """What the library logs appears as a line on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("smolvlm_edge").addHandler(handler)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
