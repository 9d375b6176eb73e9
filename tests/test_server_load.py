"""A server under hostile load: what is too much is refused, the server stays alive, and its memory bounded.

One process of the command, with its ordinary limits; after every attack it answers a question, and the most memory that
it took meanwhile is no more than the attack may cost.
"""

import base64
import json
import re
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import httpx2
import pytest
from serving import ask, command, picture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

CHAT = "/v1/chat/completions"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MB = 1 << 20
SMALL_BUFFERS = """
import socket
import smolvlm_edge.server.run as run
listen, run.READER_SECONDS = run.listen, 2
def listen_with_small_buffers(*address):
    listener = listen(*address)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return listener
run.listen = listen_with_small_buffers
"""
BODY_MB = 64
"""The most that a body may have, unless --max-body says otherwise."""


class Server:
    """The process, and what may be asked of it from outside."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self._proc = url, Path(f"/proc/{pid}")
        host, port = re.match(r"http://(.+):(\d+)", url).groups()
        self.address = host, int(port)

    @contextmanager
    def costing(self, most_mb: int) -> Iterator[None]:
        """Assert that what is done inside takes no more memory than that, and that questions are answered after it."""
        self._proc.joinpath("clear_refs").write_text("5")  # the peak is counted anew
        before = self._memory("VmRSS")
        yield
        assert self._memory("VmHWM") - before <= most_mb * MB
        question = ask(picture(), "Where is the blue star?")
        while (answer := httpx2.post(self.url + CHAT, json=question, timeout=60)).status_code == 429:
            time.sleep(0.1)  # it has not yet dealt with all that was sent
        assert answer.json()["choices"][0]["message"]["content"] == "The blue star is in the middle."

    def connected(self) -> socket.socket:
        """A connection of its own."""
        raw = socket.create_connection(self.address, timeout=30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw

    def refused(self, **options: object) -> str:
        """What is said of a request that is refused; its status is below 500."""
        response = httpx2.post(self.url + CHAT, timeout=60, **options)
        assert 400 <= response.status_code < 500, response.text[:300]
        return response.json()["error"]["message"]

    def _memory(self, name: str) -> int:
        (size,) = re.findall(rf"{name}:\s+(\d+) kB", (self._proc / "status").read_text())
        return int(size) << 10


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    patience = "import smolvlm_edge.server.run as run; run.HEAD_SECONDS = 2"
    with command(patch=patience) as (url, process):
        server = Server(url, process.pid)
        with server.costing(1000):  # what loads later than the model is loaded
            httpx2.post(url + CHAT, json={"model": 1})
        yield server


def test_a_body_of_a_gigabyte_that_says_so(server: Server) -> None:
    with server.costing(10), server.connected() as raw:
        raw.sendall(HEAD + b"Content-Length: 1073741824\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65536), b""))  # until it is closed, before anything of it is sent
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_of_a_gigabyte_that_does_not(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    with server.costing(3 * BODY_MB), server.connected() as raw:
        raw.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):  # closed by the server
            while sent < 1024 * MB:
                sent += raw.send(chunk)
    assert sent < 2 * BODY_MB * MB


def test_ten_thousand_pictures(server: Server) -> None:
    one = picture("shapes.png")
    in_one_turn = ask(*[one] * 10_000, "describe")
    in_as_many = {"messages": [{"role": "user", "content": [one]}] * 10_000}
    assert len(json.dumps(in_one_turn)) < BODY_MB * MB
    with server.costing(5 * BODY_MB):
        for wish in (in_one_turn, in_as_many):
            assert server.refused(json=wish) == "there are 10000 pictures, and a request may have 64"


def test_a_compressed_bomb(server: Server) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(bomb.compress(bytes(MB)) for _ in range(1024)) + bomb.flush()
    assert len(body) < 2 * MB
    with server.costing(10):
        assert server.refused(content=body, headers={"Content-Encoding": "gzip"}) == "compressed bodies are not read"


def test_a_picture_that_is_a_bomb(server: Server) -> None:
    """A PNG of 20,000 x 20,000 pixels in a few hundred kilobytes."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compressobj(9)
    rows = b"".join(pixels.compress(bytes(20_001)) for _ in range(20_000)) + pixels.flush()
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b"")
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    with server.costing(10):
        assert "50,000,000 pixels" in server.refused(
            json=ask({"type": "image_url", "image_url": {"url": url}}, "describe")
        )


@pytest.mark.parametrize("text", ["!" * 100, "A" * 1001, "iVBORw0KGgo" * 4_000_000, "=" * 40_000_000])
def test_broken_base64(server: Server, text: str) -> None:
    wish = ask({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}, "describe")
    with server.costing(5 * BODY_MB):
        assert len(server.refused(json=wish)) < 500


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return opening * depth + inner + closing * depth


@pytest.mark.parametrize(
    "body",
    [
        "[" * 1_000_000,
        nested("[", "", "]", 1_000_000),
        nested('{"a":', "1", "}", 1_000_000),
        '{"messages": ' + nested("[", "", "]", 100_000) + "}",
        '{"messages": [{"role": "user", "content": "a"}], "metadata": ' + nested('{"a":', "1", "}", 100_000) + "}",
        '{"messages": [{"role": "user", "content": "a"}], "json_schema": ' + nested('{"not":', "{}", "}", 900) + "}",
        '{"messages": [{"role": "user", "content": "a"}], "regex": "' + nested("(", "a", ")", 100_000) + '"}',
    ],
    ids=["open", "lists", "objects", "messages", "unknown-field", "schema", "regex"],
)
def test_deep_json(server: Server, body: str) -> None:
    with server.costing(2 * BODY_MB):
        assert len(server.refused(content=body.encode(), headers={"Content-Type": "application/json"})) < 1000


def test_heads_that_do_not_end(server: Server) -> None:
    """Slow-loris: 200 connections that send a byte now and then."""
    with server.costing(20):
        dawdling = [server.connected() for _ in range(200)]
        for _ in range(4):
            for each in dawdling:
                with suppress(OSError):
                    each.send(b"X")
            time.sleep(0.8)
        assert all(closed(each) for each in dawdling)


def test_bodies_that_do_not_end() -> None:
    """Slow-loris in the body: it is all of it that has its time, not each byte."""
    patience = "import smolvlm_edge.server.settings as s; s.Limits.__init__.__defaults__ = tuple("
    patience += "2.0 if each == 60.0 else each for each in s.Limits.__init__.__defaults__)"
    with command(patch=patience) as (url, process):
        server = Server(url, process.pid)
        with server.costing(100), server.connected() as raw:
            raw.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
            start = time.monotonic()
            while not readable(raw):
                assert time.monotonic() < start + 60, "each byte has its time"
                raw.send(b" ")
                time.sleep(0.2)
            assert raw.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_connections_whose_other_end_is_gone(server: Server) -> None:
    """Half-open ones, of which the server hears nothing; and some that are reset in the middle of a request."""
    body = json.dumps(ask(picture(), "describe", stream=True)).encode()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    mute = [server.connected() for _ in range(40)]
    with server.costing(60):
        for data in (b"", HEAD, whole[: len(whole) // 2], whole):
            for _ in range(40):
                raw = server.connected()
                raw.sendall(data)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.close()
        for each in mute:
            each.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    for each in mute:
        each.close()


def test_a_reader_that_stops_reading_does_not_hold_its_place_for_ever() -> None:
    """Its answer is more than what sockets buffer, which is little here."""
    with command(patch=SMALL_BUFFERS) as (url, process):
        server = Server(url, process.pid)
        wish = ask("Why?", stream=True, max_tokens=-1, logprobs=True, top_logprobs=20, logit_bias=endless(url))
        body = json.dumps(wish).encode()
        with socket.socket() as raw, server.costing(100):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(server.address)
            raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(1)  # and the question in `costing` is answered, though there is one place


def endless(url: str) -> dict[str, int]:
    """What lets the demonstration model never end."""
    (end,) = httpx2.post(f"{url}/tokenize", json={"content": "<end_of_utterance>"}).json()["tokens"]
    return {str(end): -100}


def readable(raw: socket.socket) -> bool:
    """Whether something came."""
    return bool(select([raw], [], [], 0)[0])


def closed(raw: socket.socket) -> bool:
    """Whether the server has closed a connection; closes it here, too."""
    with raw:
        try:
            while raw.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
