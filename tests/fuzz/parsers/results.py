"""Captions and replies of earlier runs: JSON lines."""

from pathlib import Path

from smolvlm_edge.records import open_records

BEGIN = {"smol-edge describe": 1, "model": "demo", "prompt": "x", "max_tokens": 5}


def seeds(_: Path) -> list[bytes]:
    head = b'{"smol-edge describe": 1, "model": "demo", "prompt": "x", "max_tokens": 5}\n'
    lines = b'{"file": "a.png", "text": "A dog."}\n{"file": "b.png", "error": "none"}\n'
    return [head + lines, head, head + lines * 9 + b'{"file": "c']


def parse(data: bytes, folder: Path) -> None:
    (folder / "out.jsonl").write_bytes(data)
    with open_records(folder / "out.jsonl", BEGIN, "--out", lambda line: isinstance(line.get("file"), str)) as records:
        records.add({"file": "\udce9", "text": "x"})
