"""Token ids are those of tokenizer.json, and of the transformers that the released models were trained with.

The goldens are made by make_token_ids.py, in an environment of each version.
"""

import json
from pathlib import Path

import pytest
from released_files import unpack
from tokenizers import Tokenizer

from smolvlm_edge import IntegrityError
from smolvlm_edge.bundle.tokenizer import load_tokenizer

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


DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [DIGITS] * 100},
            "pre_tokenizer has more than 24 steps",
        ),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [DIGITS] * 9}] * 9},
            "pre_tokenizer has more than 24 steps",
        ),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 40},
            "normalizer has more than 24 steps",
        ),
        ("model", {"continuing_subword_prefix": "x"}, "continuing_subword_prefix is not supported"),
    ],
)
def test_a_tokenizer_that_would_never_end_or_end_the_process(
    part: str, value: dict[str, object], words: str, tmp_path: Path
) -> None:
    """Found by fuzzing: a hundred steps, each of which makes a text longer; a prefix that cuts characters in two."""
    file = unpack(tmp_path) / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    load_tokenizer(tmp_path)
    values[part] = {**values["model"], **value} if part == "model" else value
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(IntegrityError, match=words):
        load_tokenizer(tmp_path)
