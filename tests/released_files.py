"""Unpacks the released tokenizer and configuration for tests that need the real vocabulary."""

import lzma
import shutil
from pathlib import Path

RELEASED = Path(__file__).parent / "released" / "smolvlm-256m-instruct"


def unpack(folder: Path) -> Path:
    """Fill a folder as `huggingface-cli download` would; the tokenizer is stored compressed."""
    for file in RELEASED.glob("*.json"):
        shutil.copy(file, folder)
    (folder / "tokenizer.json").write_bytes(lzma.decompress((RELEASED / "tokenizer.json.xz").read_bytes()))
    return folder
