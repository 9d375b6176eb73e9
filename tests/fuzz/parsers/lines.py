"""What is typed into a chat, and what is printed of it."""

from pathlib import Path

from smolvlm_edge.cli.lines import escaped, one_line, split_line, typed_path


def seeds(_: Path) -> list[bytes]:
    return [
        b"'/tmp/a b.png' What's in \"it\" and /tmp/c\\ d.png?",
        b"file:///tmp/a.png ~/x.png ~nobody/y.png",
        b"it'\\''s \x1b[31mred\x1b[0m",
        "Größe? \u202e 日本 👩‍👩‍👧".encode(),
    ]


def parse(data: bytes, _: Path) -> None:
    text = data.decode(errors="surrogateescape")
    assert one_line(text).isprintable() or "\u200d" in text
    assert "\x1b" not in escaped(text)
    typed_path(text)
    split_line(text)
