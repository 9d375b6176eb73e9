"""What a model costs in headless Chromium: size, load, first token, tokens a second and memory of the browser.

    python benchmarks/browser.py SITE --package PACKAGE --picture china.jpg

SITE is the page with `lib/` and `models/`, as docs/browser.md puts it together; every model in models.json is asked.
PACKAGE is a folder in which npm installed playwright-core.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from smolvlm_edge.export.layouts.transformersjs import GRAPHS, SUFFIXES

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "transformersjs" / "page.mjs"


def main(site: Path, package: Path, picture: Path, device: str) -> None:
    """Ask every model: a question in text, one tile, and the picture as it is."""
    command = [sys.executable, site / "serve.py", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    questions = [
        {"images": [], "prompt": "Write a short poem about the sea."},
        {"images": [str(picture)], "prompt": "Describe this image.", "detail": "low"},
        {"images": [str(picture)], "prompt": "Describe this image.", "detail": "auto"},
    ]
    print("| model | files MB | load s | threads | tiles | tokens | first token s | tok/s | browser's peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    try:
        for name in json.loads((site / "models" / "models.json").read_text()):
            answers, peak = ask(["node", str(PROGRAM), str(package), address, name, device], questions)
            for answer in answers:
                print(row(site / "models" / name, answer, peak), flush=True)
    finally:
        server.terminate()


def ask(command: list[str], questions: list[dict[str, object]]) -> tuple[list[dict[str, str]], int]:
    """The answers, and the most memory that the program and the browser below it took together, in bytes."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    most = [0]

    def watch() -> None:
        while process.poll() is None:
            most[0] = max(most[0], memory(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate("\n".join(map(json.dumps, questions)))
    watcher.join()
    return [json.loads(line) for line in output.splitlines()], most[0]


def memory(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes; shared pages count once."""
    below, total = {pid}, 0
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    for each in below:
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    return total


def row(model: Path, answer: dict[str, str], peak: int) -> str:
    """A line of the table, of what the page said when it had loaded the model and under its answer."""
    loading = re.match(r"Loaded (\w+) in ([\d.]+) s(?:, (\d+) thread)?", answer["loaded"])
    pattern = r"(\d+) tiles, (\d+) \+ (\d+) tokens, first after ([\d.]+) s(?:, ([\d.]+) tokens/s)?"
    found = re.match(pattern, answer["status"])
    if loading is None or found is None:
        return f"| {model.name} | {answer['loaded']} | {answer['status']} |"
    dtype, seconds, threads = loading.groups()
    files = [file for graph in GRAPHS for file in model.glob(f"onnx/{graph}{SUFFIXES[dtype]}.onnx*")]
    size = sum(file.stat().st_size for file in files)
    tiles, asked, answered, first, speed = found.groups()
    made = f"{seconds} | {threads or '–'} | {tiles} | {asked} + {answered} | {first} | {speed or '–'}"
    return f"| {model.name} {dtype} | {size / 1e6:.0f} | {made} | {peak / 1e6:.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--device", choices=["wasm", "webgpu"], default="wasm")
    options = parser.parse_args()
    main(options.site.resolve(), options.package.resolve(), options.picture.resolve(), options.device)
