"""The `smol-edge` command: one file per subcommand, each of which parses, calls and prints."""

import os
import signal
import sys

TYPE_CHECKING = False  # that of typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command line; every foreseen error is one line on stderr and a documented exit code."""
    heed_signals(_leave)
    from smolvlm_edge.cli.commands import command  # noqa: PLC0415 - it takes a while, and signals may come meanwhile

    command()


def heed_signals(handler: "signal._HANDLER") -> None:
    """Have Ctrl-C, a polite kill and a terminal that is closed handled, as far as they are not to be ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP; nohup, for one, wants it ignored
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, _: object) -> "NoReturn":
    """Nothing has begun that would have to be undone, and who imports may make another error of an exception."""
    if number == signal.SIGINT and sys.stderr is not None:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
    os._exit(128 + number)
