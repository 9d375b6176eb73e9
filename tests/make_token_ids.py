"""Make tests/goldens/token_ids.json: what transformers 4.57 and 5 make of texts with the released SmolVLM tokenizer.

Run it once in an environment of each version; every run writes its own part.

    pip install transformers==4.57.6 jinja2 && python tests/make_token_ids.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import transformers
from released_files import unpack

GOLDENS = Path(__file__).parent / "goldens" / "token_ids.json"
TEXTS = (
    "Answer the list:\n\n1. red\n\n2. blue",
    "2024-11-27: 1,234.5 kg",
    "\n\n\n7\n\n42",
    "What is the capital of France?",
    "Ein Wort, dann 3\u00a0% und <end_of_utterance>",
)


def main() -> None:
    """Write the ids that this version gives."""
    with TemporaryDirectory() as folder:
        tokenizer = transformers.AutoTokenizer.from_pretrained(unpack(Path(folder)))
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS}
    goldens = json.loads(GOLDENS.read_text(encoding="utf-8")) if GOLDENS.is_file() else {}
    goldens[transformers.__version__] = ids
    GOLDENS.write_text(json.dumps(goldens, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
