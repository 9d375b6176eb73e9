"""Many callers at once on llama.cpp's server, with as many slots; see `callers.py` for the request and the report.

`model` is {"server": the program, "text": a GGUF file, "mmproj": a GGUF file, "positions": of every slot}.
"""

import base64
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from callers import Asked, report, together
from protocol import request

PATIENCE_S = 300
asked = Asked(**request())


def start_server(port: int) -> "subprocess.Popen[bytes]":
    """With a cache for all slots; nothing of one question is kept for another."""
    model, threads = asked.model, str(asked.threads)
    command = [model["server"], "--model", model["text"], "--host", "127.0.0.1", "--port", str(port)]
    command += ["--parallel", str(asked.parallel), "--ctx-size", str(asked.parallel * model["positions"])]
    command += ["--threads", threads, "--threads-batch", threads, "--no-webui", "--log-disable"]
    if asked.pictures:
        command += ["--mmproj", model["mmproj"]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Until it answers."""
    for _ in range(PATIENCE_S * 20):
        if server.poll() is not None:
            sys.exit(f"llama-server ended with exit code {server.returncode}")
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit("llama-server did not begin to answer")


def question(number: int) -> dict[str, Any]:
    """One caller's, in the form of OpenAI's chat completions."""
    content: list[dict[str, Any]] = [{"type": "text", "text": f"{number}. {asked.prompt}"}]
    if asked.pictures:
        data = base64.b64encode(Path(asked.pictures[number]).read_bytes()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    wish = {"max_tokens": asked.tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return {"messages": [{"role": "user", "content": content}], **wish}


def ask(number: int) -> list[float]:
    """When one caller got each token."""
    connection = HTTPConnection("127.0.0.1", port, timeout=3600)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(question(number)), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"llama-server: {response.status} {response.read(300)!r}")
    texts = (line for line in response if line.startswith(b"data: {") and _content(json.loads(line[6:])["choices"]))
    return [time.perf_counter() for _ in texts]


def _content(choices: Sequence[Any]) -> bool:
    """Whether there is text; a token that ends in half a character brings none."""
    return bool(choices and choices[0]["delta"].get("content"))


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
start = time.perf_counter()
server = start_server(port)
try:
    wait_for(server, port)
    load_s = time.perf_counter() - start
    ask(0)
    found = together(ask, asked.callers)
    status = Path(f"/proc/{server.pid}/status").read_text()
    report(found, load_s, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024)
finally:
    server.kill()
    server.wait()
