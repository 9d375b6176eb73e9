"""A conversation, line by line: what `smol-edge chat` does with what is typed or piped in."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from threading import Event
from typing import TextIO

from rich.console import Console

from smolvlm_edge.chat import Chat
from smolvlm_edge.cli.cut_off import say_if_cut_off
from smolvlm_edge.cli.lines import escaped, one_line, printable, split_line, typed_path
from smolvlm_edge.cli.options import TileBar
from smolvlm_edge.conversation.messages import RawMessage, Source
from smolvlm_edge.conversation.request import check_request
from smolvlm_edge.errors import RequestError, SmolEdgeError, StoppedError
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.timings import Timings

LONGEST_LINE = 1 << 20
"""Characters; no context holds as many."""
COMMANDS = """\
/image PATH   show a picture or video with the next question; its path in the question does the same
/system TEXT  what the model is told before everything else
/save FILE    keep the conversation: as messages if FILE ends with .json, else as text
/clear        forget the conversation
/help         this list
/quit         end, as Ctrl-D does; Ctrl-C ends an answer only"""


class Session:
    """Reads lines, answers them on stdout, and says all else on stderr.

    On a terminal a mistake is told and the next line is read, and Ctrl-C ends an answer; otherwise both end it all, as
    in every other command.
    """

    def __init__(self, talk: Chat, pictures: list[Source], options: GenerateOptions) -> None:
        self._chat, self._options = talk, options
        self._pictures = pictures
        """Those that go with the next question."""
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._show,
            "/system": self._instruct,
            "/save": self._save,
            "/clear": self._clear,
            "/help": lambda _: self._say(COMMANDS),
        }
        self._terminal = sys.stdin is not None and sys.stdin.isatty()
        self._stderr = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> None:
        """Until the lines end, or /quit."""
        if self._terminal:
            self._say("/help lists the commands, Ctrl-D ends")
        for line in self._lines():
            if line.strip() == "/quit":
                return
            try:
                self._obey(line.strip())
            except SmolEdgeError as error:
                if not self._terminal:
                    raise
                self._say(one_line(f"error: {error}"))

    def _lines(self) -> Iterator[str]:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        if not self._terminal:
            while sys.stdin and (line := sys.stdin.readline(LONGEST_LINE + 1)):
                if len(line) > LONGEST_LINE:
                    raise RequestError(f"a line has more than {LONGEST_LINE:,} characters")
                yield line
            return
        with suppress(ImportError):  # Windows has none, and a history of its own
            import_module("readline")  # gives input() a history, which stays in memory
        while True:
            try:
                yield input("> ")
            except KeyboardInterrupt:
                print()
            except EOFError:
                print()
                return

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        files, words = split_line(line)
        if command in self._commands:
            self._commands[command](rest.strip())
        elif line.startswith("/") and not files:
            raise RequestError(f"{command} is no command and no file: /help lists the commands")
        elif words:
            self._pictures += files
            self._answer(words)
        else:
            for file in files:
                self._add(file)

    def _answer(self, question: str) -> None:
        pictures, self._pictures = self._pictures, []
        start, chunk = time.perf_counter(), None
        with self._ctrl_c() as cancel, TileBar() as bar:
            try:
                for chunk in self._chat.stream(question, pictures, cancel=cancel, on_tile=bar.count):
                    bar.stop()  # the answer takes the bar's place
                    print(printable(chunk.text), end="", flush=True)
            except StoppedError:
                bar.stop()
                print(" ...", end="")
        print(flush=True)
        self._say(_summary(time.perf_counter() - start, chunk.timings if chunk else Timings()))
        if chunk:
            say_if_cut_off(chunk, self._options)

    @contextmanager
    def _ctrl_c(self) -> Iterator[Event]:
        """What Ctrl-C sets meanwhile: an answer that ends in good order can be gone on from."""
        pressed = Event()
        if not self._terminal:
            yield pressed
            return
        before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
        try:
            yield pressed
        finally:
            signal.signal(signal.SIGINT, before)

    def _show(self, path: str) -> None:
        if not path:
            raise RequestError("/image needs the path of a picture or video")
        self._add(typed_path(path))

    def _add(self, picture: Source) -> None:
        check_request([picture], "describe", {})
        self._pictures.append(picture)
        name = picture if isinstance(picture, str | Path) else "the picture"
        self._say(f"{name} goes with the next question")

    def _instruct(self, text: str) -> None:
        self._chat.system = text or None
        self._say("the model is told that before everything else" if text else "the model is told nothing beforehand")

    def _clear(self, _: str) -> None:
        self._chat.clear()
        self._pictures = []
        self._say("the conversation is forgotten")

    def _save(self, name: str) -> None:
        if not name:
            raise RequestError("/save needs the name of a file")
        path = Path(typed_path(name))  # type: ignore[arg-type] # no URL of a picture
        messages = self._chat.messages
        as_json = path.suffix == ".json"
        text = json.dumps(messages, ensure_ascii=False, indent=1, default=str) if as_json else _transcript(messages)
        try:
            with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                _write(file, text + "\n")
        except FileExistsError:
            raise RequestError(f"{path} exists: choose another name") from None
        except (OSError, ValueError) as error:
            raise RequestError.of_file(path, error, "written") from error
        self._say(f"{path} is written")

    def _say(self, text: str) -> None:
        self._stderr.print("\n".join(map(escaped, text.splitlines())), style="dim")


def _write(file: TextIO, text: str) -> None:
    """All of it or nothing: a file that has only the beginning is not left behind."""
    try:
        file.write(text)
        file.close()
    except OSError:
        Path(file.name).unlink()
        raise


def _summary(seconds: float, timings: Timings) -> str:
    read, known = timings.prompt_tokens, timings.cached_tokens
    return (
        f"{seconds:.1f} s; {read} tokens read, {known} of them before; "
        f"{timings.generated_tokens} written, {timings.decode_tokens_per_s:.0f} per second"
    )


def _transcript(messages: list[RawMessage]) -> str:
    """The conversation to read: a paragraph a turn, names of files in brackets."""
    paragraphs = []
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        said = " ".join(part["text"] if "text" in part else f"[{part['image']}]" for part in parts)
        paragraphs.append(f"{message['role'].capitalize()}: {said}")
    return "\n\n".join(paragraphs)
