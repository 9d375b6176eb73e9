"""data:, file: and other URLs, and paths."""

from pathlib import Path

from smolvlm_edge.conversation.sources import as_source, check_no_path
from smolvlm_edge.errors import RequestError


def seeds(_: Path) -> list[bytes]:
    return [
        b"data:image/png;base64,aGVsbG8gd29ybGQ=",
        b"data:;charset=utf-8,hello%20world",
        b"file:///tmp/a%20b.png",
        b"file://localhost/c:/x.png",
        b"https://example.org/a.png",
        b"C:\\x\\y.png",
    ]


def parse(data: bytes, _: Path) -> None:
    text = data.decode(errors="surrogateescape")
    as_source(text)
    try:
        check_no_path(text)
    except RequestError:
        return
    assert text[:5].lower() == "data:"
