"""Many callers at once against `smol-edge serve`: errors, memory, latency.

    python benchmarks/load.py [--callers 64] [--minutes 10] [--parallel 4] [--model demo]

Starts a server, lets every caller ask about one of the example pictures again and again, half of them streaming and a
few of them leaving in mid-answer, and prints one JSON object: answers by status, the 50th, 95th and 99th percentile of
those that were given, and the server's resident memory at the start, after a tenth of the time and at the end. What is
wanted: no status but 200 and 429, and memory that does not grow. Callers that are refused wait as Retry-After says.
"""

import argparse
import base64
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = ("shapes.png", "text.png", "chart.png", "before.png", "after.png")
LEAVING = 0.05
"""Share of the streams that their caller does not read to the end."""


class Caller(threading.Thread):
    """Asks until the time is over."""

    def __init__(self, url: str, number: int, end: float) -> None:
        super().__init__(daemon=True)
        self._url, self._end, self._random = f"{url}/v1/chat/completions", end, random.Random(number)  # noqa: S311
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Ask."""
        with httpx2.Client(timeout=600) as client:
            while time.monotonic() < self._end:
                start = time.monotonic()
                try:
                    status, wait = self._ask(client)
                except httpx2.HTTPError as error:
                    status, wait = type(error).__name__, 1.0
                self.statuses[status] += 1
                if status == "200":
                    self.seconds.append(time.monotonic() - start)
                time.sleep(wait)

    def _ask(self, client: httpx2.Client) -> tuple[str, float]:
        data = base64.b64encode((EXAMPLES / self._random.choice(PICTURES)).read_bytes()).decode()
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        content = [picture, {"type": "text", "text": "describe"}]
        stream = self._random.random() < 0.5
        wish = {"messages": [{"role": "user", "content": content}], "max_tokens": 60, "stream": stream}
        with client.stream("POST", self._url, json=wish) as response:
            if response.status_code != 200:
                response.read()
                return str(response.status_code), float(response.headers.get("retry-after", 1)) * self._random.random()
            if stream and self._random.random() < LEAVING:
                next(response.iter_lines(), None)
                return "left", 0.0
            text = response.read().decode()
        whole = text.rstrip().endswith("data: [DONE]") if stream else bool(json.loads(text)["choices"])
        return ("200" if whole else "torn"), 0.0


def resident_mb(process: int) -> int:
    """Resident memory of a process (Linux)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def main() -> None:
    """Start the server, let them ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--model", default="demo")
    wanted = parser.parse_args()
    line = [sys.executable, "-m", "smolvlm_edge.cli", "serve", "--port", "0", "--offline", "--model", wanted.model]
    with subprocess.Popen([*line, "--parallel", str(wanted.parallel)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(found[0] for text in server.stderr if (found := re.search(r"http://\S+", text)))
        while httpx2.get(f"{url}/health").status_code != 200:
            time.sleep(0.1)
        memory = [resident_mb(server.pid)]
        seconds = wanted.minutes * 60
        callers = [Caller(url, number, time.monotonic() + seconds) for number in range(wanted.callers)]
        for caller in callers:
            caller.start()
        time.sleep(seconds / 10)
        memory.append(resident_mb(server.pid))
        for caller in callers:
            caller.join()
        memory.append(resident_mb(server.pid))
        server.terminate()
    times = sorted(each for caller in callers for each in caller.seconds)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    print(
        json.dumps(
            {
                "callers": wanted.callers,
                "minutes": wanted.minutes,
                "parallel": wanted.parallel,
                "cpus": os.cpu_count(),
                "answers": dict(sum((caller.statuses for caller in callers), Counter())),
                "seconds": {"p50": round(cuts[49], 3), "p95": round(cuts[94], 3), "p99": round(cuts[98], 3)},
                "rss_mb": {"start": memory[0], "after a tenth": memory[1], "end": memory[2]},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
