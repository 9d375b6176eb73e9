"""The header of a safetensors file."""

from pathlib import Path

from smolvlm_edge.export.checkpoint import Checkpoint
from tests.fuzz.parsers import tiny

HEADER = 4096
"""Bytes from the start that are damaged; the rest is numbers."""


def seeds(_: Path) -> list[bytes]:
    (whole,) = tiny("model.safetensors")
    return [whole[:HEADER]]


def parse(data: bytes, folder: Path) -> None:
    (whole,) = tiny("model.safetensors")
    (folder / "model.safetensors").write_bytes(data + whole[HEADER:])
    for weight in list(Checkpoint(folder).weights.values())[:3]:
        weight.load()
