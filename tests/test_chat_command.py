"""`smol-edge chat`, with questions piped in and on a terminal."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import SmolVLM
from smolvlm_edge.cli.lines import split_line, typed_path

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "examples" / "shapes.png"
STAR = "What color is the star?"
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows writes paths otherwise")


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


# -- piped in ---------------------------------------------------------------------------------------


def piped(*lines: str, arguments: tuple = (), **options) -> subprocess.CompletedProcess[str]:
    program = "from smolvlm_edge.cli import main\nmain()"
    command = [sys.executable, "-c", program, "chat", *map(str, arguments)]
    text = "".join(line + "\n" for line in lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=False, **options)


def test_every_line_is_a_question(tmp_path: Path) -> None:
    result = piped(STAR, "", STAR, "/quit", STAR, arguments=(SHAPES, "--model", "demo"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    chat = SmolVLM.load("demo").chat()
    assert result.stdout == f"{chat.ask(STAR, SHAPES)}\n{chat.ask(STAR)}\n"
    assert result.stdout.startswith("The star is blue.\n")
    summaries = result.stderr.splitlines()
    assert len(summaries) == 2
    assert all(
        re.fullmatch(r"[\d.]+ s; \d+ tokens read, \d+ of them before; \d+ written, \d+ per second", line)
        for line in summaries
    )


def test_pictures_in_the_line_and_commands(bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(SHAPES.read_bytes())
    arguments = ("--model", bundle, "--max-tokens", "4", "--detail", "low", "--memory", "low", "--system", "Be brief.")
    lines = [
        f"'{picture}' What is this?",
        f"/image {picture}",
        "And this?",
        "/save one.txt",
        "/system Be loud.",
        "/save two.json",
        "/clear",
        "Hello",
        "/save three.json",
        "/help",
    ]
    result = piped(*lines, arguments=arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answers = result.stdout.splitlines()
    model = SmolVLM.load(bundle)
    kept = json.loads((tmp_path / "two.json").read_text())
    assert kept[0] == {"role": "system", "content": "Be loud."}
    assert [part.get("image") for turn in (1, 3) for part in kept[turn]["content"]] == [str(picture), None] * 2
    kept[0]["content"] = "Be brief."
    for answered in (2, 4):
        expected = model.generate(messages=kept[:answered], max_tokens=4, detail="low")
        assert kept[answered]["content"] == expected.text
    text = (tmp_path / "one.txt").read_text()
    assert f"System: Be brief.\n\nUser: [{picture}] What is this?\n\nAssistant: {kept[2]['content']}" in text
    assert [turn["role"] for turn in json.loads((tmp_path / "three.json").read_text())] == [
        "system",
        "user",
        "assistant",
    ]
    assert "/image PATH" in result.stderr
    assert "".join(answers) == "".join("".join(kept[i]["content"].splitlines()) for i in (2, 4)) + "".join(
        json.loads((tmp_path / "three.json").read_text())[2]["content"].splitlines()
    )


@pytest.mark.parametrize(
    ("line", "exit_code", "words"),
    [
        ("/image missing.png", 5, ["missing.png", "does not exist"]),
        ("/image", 2, ["/image"]),
        ("/image https://example.org/a.png", 2, ["not fetched"]),
        ("/imagine a.png", 2, ["/imagine", "/help"]),
        ("/save", 2, ["/save"]),
        ("/save models.lock", 2, ["exists"]),
        ("/save missing/file.txt", 2, ["missing/file.txt", "cannot be written"]),
        ("file:///missing.png What is this?", 5, ["missing.png"]),
    ],
)
def test_a_mistake_ends_it_when_nobody_sits_there(bundle: Path, line: str, exit_code: int, words: list[str]) -> None:
    result = piped(line, "Hello", arguments=("--model", bundle, "--max-tokens", "2"), cwd=ROOT)
    assert_fails(result, exit_code, *words)
    assert result.stdout == ""


def test_mistakes_in_the_arguments_come_before_the_model_is_loaded(tmp_path: Path) -> None:
    assert_fails(smol_edge("chat", "missing.png", "--model", tmp_path, cwd=tmp_path), 5, "missing.png")
    assert_fails(smol_edge("chat", "--max-tokens", "0", "--model", tmp_path), 2, "max_tokens")


def test_a_piped_chat_goes_on_when_it_is_full(bundle: Path) -> None:
    long = "word " * (SmolVLM.load(bundle).bundle.model.text.max_position_embeddings // 12)
    arguments = ("--model", bundle, "--max-tokens", "2")
    result = piped(*[long] * 4, arguments=arguments)
    assert result.returncode == 0, result.stderr
    assert "note: the conversation has become too long: its oldest turn is left out" in result.stderr
    assert result.stderr.count(" per second") == 4
    assert_fails_last(piped(*[long] * 4, arguments=(*arguments, "--on-full", "stop")), 2, "--on-full drop", "/clear")


def assert_fails_last(result: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    assert result.returncode == exit_code, result.stderr
    assert all(word in result.stderr.splitlines()[-1] for word in words), result.stderr


@pytest.mark.parametrize("line", ["/image ~\0", "/image a\0.png", "/save ~\0.txt", "file://[x What?", "x" * 2_000_000])
def test_lines_that_mean_nothing(bundle: Path, line: str, tmp_path: Path) -> None:
    result = piped(line, arguments=("--model", bundle, "--max-tokens", "2"), cwd=tmp_path)
    assert result.returncode in (2, 5), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 1200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_conversation_is_saved_whole_or_not_at_all(bundle: Path, tmp_path: Path) -> None:
    patch = """
import smolvlm_edge.cli.session as session
write = session._write
def full(file, text):
    class Full:
        name = file.name
        def write(self, text): file.write("half")
        def close(self): file.close(); raise OSError(28, "No space left on device")
    write(Full(), text)
session._write = full
"""
    program = f"{patch}\nfrom smolvlm_edge.cli import main\nmain()"
    command = [sys.executable, "-c", program, "chat", "--model", str(bundle)]
    result = subprocess.run(
        command, input="/save talk.txt\n", capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path
    )
    assert_fails(result, 2, "talk.txt", "No space left")
    assert not list(tmp_path.iterdir())


# -- on a terminal ----------------------------------------------------------------------------------


class Terminal:
    """A person who reads what appears and types."""

    def __init__(self, *arguments: str | Path, home: Path, patch: str = "") -> None:
        import pty  # noqa: PLC0415 - not on Windows

        program = f"{patch}\nfrom smolvlm_edge.cli import main\nmain()"
        command = [sys.executable, "-c", program, "chat", *map(str, arguments)]
        self.pid, self.screen = pty.fork()
        if not self.pid:
            os.chdir(home)
            os.execve(sys.executable, command, os.environ | {"HOME": str(home), "TERM": "dumb", "INPUTRC": "/dev/null"})
        self.seen = ""

    def interrupt(self, words: str) -> None:
        """Ctrl-C, once more if it came before the line editor was there to notice, up to these words."""
        for _ in range(20):
            self.type("\x03")
            with suppress(AssertionError):
                self.until(words, seconds=3)
                return
        pytest.fail(self.seen)

    def until(self, words: str, seconds: float = 60) -> str:
        """What appears up to these words."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.screen], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.screen, 4096).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert words in self.seen, self.seen
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.screen)
        return code


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., Terminal]:
    return lambda *arguments, **options: Terminal(*arguments, home=tmp_path, **options)


@posix_only
def test_a_conversation_on_a_terminal(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Ctrl-C ends an answer and clears a line, a mistake is told, Ctrl-D ends; and nothing is left behind."""
    patch = """
import os, signal
from smolvlm_edge.chat import Chat
stream = Chat.stream
def interrupted(self, text, *arguments, **options):
    for count, chunk in enumerate(stream(self, text, *arguments, **options)):
        yield chunk
        if "too long" in text and count == 2:
            os.kill(os.getpid(), signal.SIGINT)
Chat.stream = interrupted
"""
    person = terminal("--model", "demo", patch=patch)
    person.until("Ctrl-D ends")
    person.until("> ")
    person.type("/image missing.png\n")
    person.until("error: missing.png does not exist")
    person.until("> ")
    escaped = str(SHAPES).replace(" ", "\\ ")
    person.type(f"{escaped} \n")
    person.until("goes with the next question")
    person.until("> ")
    person.type(f"{STAR}\n")
    person.until("The star is blue.")
    person.until("per second")
    person.until("> ")
    person.type("describe, too long\n")
    person.until(" ...")
    person.until("> ")
    person.type("half a line")
    person.until("half a line")
    person.interrupt("> ")
    person.type(f"{STAR}\n")
    person.until("The star is blue.")
    person.until("> ")
    person.type("\x04")
    assert person.exit_code() == 0
    assert list(tmp_path.iterdir()) == []


# -- what a line means ------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize(
    ("written", "rest"),
    [
        ("'{folder}/a picture.png'", ""),
        ("'{folder}/a picture.png' ", ""),
        ('"{folder}/a picture.png" What is it?', "What is it?"),
        ("What is {folder}/a\\ picture.png please?", "What is please?"),
        ("{url}", ""),
        ("{url} What  is it?", "What  is it?"),
        ("What's in '{folder}/a picture.png'", "What's in"),
    ],
)
def test_dropped_files_are_pictures(tmp_path: Path, written: str, rest: str) -> None:
    picture = tmp_path / "a picture.png"
    picture.touch()
    files, words = split_line(written.format(folder=tmp_path, url=picture.as_uri()))
    assert ([Path(file) for file in files], words) == ([picture], rest)


@posix_only
def test_an_apostrophe_in_a_name(tmp_path: Path) -> None:
    picture = tmp_path / "it's.png"
    picture.touch()
    quoted = "'" + str(picture).replace("'", "'\\''") + "'"
    assert split_line(f"{quoted} What?") == ([str(picture)], "What?")
    assert typed_path(quoted) == str(picture)


def test_words_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name, a quotation, a path that leads nowhere, spaces: all of it is the question."""
    (tmp_path / "red").touch()
    (tmp_path / "shapes.png").touch()
    monkeypatch.chdir(tmp_path)
    for line in (
        'Is it  red or "dark  blue"?',
        "What's that and what's this?",
        "Is 'a.png' a name?",
        "Why? /no/such.png",
    ):
        assert split_line(line) == ([], line)
    assert split_line("shapes.png Is it red?") == (["shapes.png"], "Is it red?")
