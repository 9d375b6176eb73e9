"""Token ids are those of tokenizer.json, and of the transformers that the released models were trained with.

The goldens are made by make_token_ids.py, in an environment of each version.
"""

import json
from pathlib import Path

import pytest
from released_files import unpack
from tokenizers import Tokenizer

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "token_ids.json").read_text(encoding="utf-8"))
LIST = "Answer the list:\n\n1. red\n\n2. blue"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(str(unpack(tmp_path_factory.mktemp("released")) / "tokenizer.json"))


@pytest.mark.parametrize("text", GOLDENS["4.57.6"])
def test_ids_are_those_of_transformers_4_57(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text, add_special_tokens=False).ids == GOLDENS["4.57.6"][text]


def test_transformers_5_splits_no_digits_off() -> None:
    """It rebuilds a GPT2Tokenizer of an idefics3 checkpoint without that step; the README says so."""
    assert len(GOLDENS["4.57.6"][LIST]) == 12
    assert len(GOLDENS["5.23.0"][LIST]) == 14
