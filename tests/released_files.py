"""Unpacks the released tokenizer and configuration for tests that need the real vocabulary."""

import lzma
import shutil
from pathlib import Path

RELEASED = Path(__file__).parent / "released" / "smolvlm-256m-instruct"


def tokenizer_json() -> bytes:
    return lzma.decompress((RELEASED / "tokenizer.json.xz").read_bytes())


def unpack(folder: Path) -> Path:
    """Fill a folder as `huggingface-cli download` would; the tokenizer is stored compressed."""
    for file in RELEASED.glob("*.json"):
        shutil.copy(file, folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder
