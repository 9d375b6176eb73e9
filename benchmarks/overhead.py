r"""What `smol-edge serve` costs over the Python API: milliseconds to the first token, and tokens/s.

    python benchmarks/overhead.py --model demo --picture examples/shapes.png
    python benchmarks/overhead.py --model 256m-int4 --picture china.jpg --detail low --pairs 40

The same streamed question is put to the API in one process and to the server in another, in turns and in either order,
each with the same threads; each pair is about a picture of its own (the given one, shifted), so that nothing is known
of it before. Prints one JSON object: medians of both, the median of the differences between the two of a pair, and
between which bounds half of them lie. Bounds that are to hold: 3 ms to the first token, 2 % of tokens/s.
"""

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from PIL import Image, ImageChops

from smolvlm_edge import SmolVLM
from smolvlm_edge.graphs import available_cores

QUESTION = "Describe this image."
PAUSE_S = 0.1
"""Between two answers: an engine's threads spin for a while after the last step."""


class Took(NamedTuple):
    """Of one answer, seen from where it was asked."""

    first_ms: float
    tokens_per_s: float


Ask = Callable[[bytes | None], Took]


def timed(arrivals: Iterator[object], start: float, tokens: int) -> Took:
    """What the first and the last arrival say, from when the question was put."""
    moments = [time.perf_counter() for _ in arrivals]
    return Took(1000 * (moments[0] - start), (tokens - 1) / (moments[-1] - moments[0]))


def answer_by_api(pipe: Any, options: argparse.Namespace) -> None:
    """Answers questions of another process until there is none, and says how long each took."""
    with SmolVLM.load(options.model, threads=options.threads) as model:
        ends = dict.fromkeys(model.bundle.model.eos_token_ids, -100.0)  # answers of one length
        wish = {"max_tokens": options.tokens, "logit_bias": ends, "detail": options.detail, "temperature": 0.0}
        pipe.send(list(ends))
        while (asked := pipe.recv()) is not None:
            (picture,) = asked
            start = time.perf_counter()
            chunks = model.stream([picture] if picture else [], QUESTION, **wish)
            pipe.send(timed(chunks, start, options.tokens))


@contextmanager
def api(options: argparse.Namespace) -> Iterator[tuple[Ask, list[int]]]:
    """The API in a process of its own, and the tokens that would end an answer."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=answer_by_api, args=(there, options), daemon=True)
    process.start()

    def ask(picture: bytes | None) -> Took:
        here.send([picture])
        return here.recv()

    yield ask, here.recv()
    here.send(None)
    process.join()


@contextmanager
def served(options: argparse.Namespace, ends: list[int]) -> Iterator[Ask]:
    """The server, over connections that are open before the clock starts."""
    line = [sys.executable, "-m", "smolvlm_edge.cli", "serve", "--port", "0", "--offline", "--model", options.model]
    line += ["--threads", str(options.threads)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(found[0] for text in server.stderr if (found := re.search(r"http://\S+", text)))
        host, port = urlsplit(url).hostname, urlsplit(url).port
        while not is_ready(f"{host}:{port}"):
            time.sleep(0.1)
        wish = {"max_tokens": options.tokens, "logit_bias": dict.fromkeys(map(str, ends), -100), "stream": True}

        def ask(picture: bytes | None) -> Took:
            content: list[dict[str, Any]] = [{"type": "text", "text": QUESTION}]
            if picture:
                data = {"url": "data:image/png;base64," + base64.b64encode(picture).decode(), "detail": options.detail}
                content.insert(0, {"type": "image_url", "image_url": data})
            body = json.dumps({**wish, "messages": [{"role": "user", "content": content}]}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection((host, port)) as connection:
                start = time.perf_counter()
                connection.sendall(head.encode() + body)
                return timed(events_of(connection), start, options.tokens)

        try:
            yield ask
        finally:
            server.terminate()


def take_precedence() -> str:
    """Let this process, which reads for both, never wait for a processor, as long as it may: that is not the server's.

    Where the engine computes with all processors, an arrival is seen some 2 ms later otherwise.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, PermissionError):  # not Linux, or not root
        return "waits for a processor"
    return "comes first"


def is_ready(netloc: str) -> bool:
    """Whether the server has loaded its model."""
    with closing(http.client.HTTPConnection(netloc)) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200


def events_of(connection: socket.socket) -> Iterator[None]:
    """What a stream sends with its first token and after; the last one says that the answer has ended.

    Counted in the bytes as they come, and nothing is parsed: what a client spends is not the server's.
    """
    if not (data := connection.recv(1 << 16)).startswith(b"HTTP/1.1 200"):
        sys.exit(data.decode())
    while data:
        yield from (None for _ in range(data.count(b"data: {")))
        data = connection.recv(1 << 16)


def pictures(options: argparse.Namespace) -> Iterator[bytes | None]:
    """One for every pair, all of one size and none like another; none if none was given."""
    for number in range(options.pairs + 2):
        if options.picture is None:
            yield None
            continue
        with Image.open(options.picture) as opened:
            shifted = ImageChops.offset(opened.convert("RGB"), 7 * number, 3 * number)
        file = BytesIO()
        shifted.save(file, "PNG", compress_level=1)
        yield file.getvalue()


def summary(values: list[float]) -> dict[str, float]:
    """The middle, and between which bounds half of them lie."""
    low, _, high = quantiles(values, n=4)
    return {"median": round(median(values), 3), "from": round(low, 3), "to": round(high, 3)}


def main() -> None:
    """Ask in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--detail", default="high")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=available_cores())
    options = parser.parse_args()
    pairs: list[tuple[Took, Took]] = []
    with api(options) as (by_api, ends), served(options, ends) as by_server:
        client = take_precedence()
        for number, picture in enumerate(pictures(options)):
            took = {}
            for ask in (by_api, by_server) if number % 2 else (by_server, by_api):
                time.sleep(PAUSE_S)
                took[ask] = ask(picture)
            pairs.append((took[by_api], took[by_server]))
    pairs = pairs[2:]  # the first ones warm up
    wanted = {name: getattr(options, name) for name in ("model", "detail", "tokens", "pairs", "threads")}
    wanted["client"] = client
    figures = {
        "api": {"first_ms": summary([a.first_ms for a, _ in pairs]), "tokens/s": summary([a[1] for a, _ in pairs])},
        "server": {"first_ms": summary([s.first_ms for _, s in pairs]), "tokens/s": summary([s[1] for _, s in pairs])},
        "first_ms_more": summary([s.first_ms - a.first_ms for a, s in pairs]),
        "tokens/s_less_percent": summary([100 * (1 - s.tokens_per_s / a.tokens_per_s) for a, s in pairs]),
    }
    print(json.dumps({**wanted, "picture": str(options.picture), **figures}, indent=1))


if __name__ == "__main__":
    main()
