"""Every model of the family, as a tiny checkpoint of its exact configuration, against transformers in float32.

The checkpoints are made by family.py, the goldens by make_family.py. A row of the table on docs/family.md stands for
the tests that carry the model's name: `pytest tests/test_family.py -k SmolVLM2-500M-Video-Instruct`.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from command import smol_edge
from family import CASES, DOCTAGS, FAMILY, SAVED_AGAIN, write_checkpoint
from rig import Golden, Rig, assert_close, read_golden

from smolvlm_edge import RequestError
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.generation.detokenizer import Detokenizer
from smolvlm_edge.quantize import RECIPES

GOLDENS = Path(__file__).parent / "goldens" / "family"
PAGE = Path(__file__).parent.parent / "docs" / "family.md"
NEW_TOKENS = 24
DOCLING = ("SmolDocling-256M-preview", "granite-docling-258M")

OpenRig = Callable[[str], Rig]

every_member = pytest.mark.parametrize("name", FAMILY)
every_case = pytest.mark.parametrize("case", CASES)
base_members = pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if member.is_base])


def golden(name: str, case: str) -> Golden:
    return read_golden(GOLDENS / f"{name}.npz", case)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """checkpoint(name): the member's folder. Read-only."""
    return cache(lambda name: write_checkpoint(tmp_path_factory.mktemp("family") / name, name))


@pytest.fixture(scope="module")
def rig(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenRig]:
    """rig(name): the member exported and loaded, once."""
    rigs: dict[str, Rig] = {}

    def open_rig(name: str) -> Rig:
        if name not in rigs:
            rigs[name] = Rig(
                export_checkpoint(checkpoint(name), tmp_path_factory.mktemp("bundle") / name, RECIPES["fp32"])
            )
        return rigs[name]

    yield open_rig
    for each in rigs.values():
        each.close()


@every_member
@every_case
def test_pixels_and_token_ids(rig: OpenRig, name: str, case: str) -> None:
    """To the last bit."""
    expected, question = golden(name, case), CASES[case]
    tiles = [pixels for picture in rig(name).cut(question) for pixels in picture.pixel_values()]
    assert rig(name).input_ids(question).tolist() == expected["input_ids"].tolist()
    if tiles:
        assert len(tiles) == expected["tiles"]
        assert sha256(np.concatenate(tiles).astype("<f4").tobytes()).hexdigest() == expected["pixels"].item()


@every_member
@every_case
def test_logits(rig: OpenRig, name: str, case: str) -> None:
    """From the pictures to the prompt's last position, with nothing of the reference in between."""
    expected, parts, question = golden(name, case), rig(name), CASES[case]
    features = {"image_features": parts.image_features(question)} if question.sizes else {}
    assert_close(parts.start({"input_ids": parts.input_ids(question), **features}), expected["logits"])


@every_member
@every_case
def test_greedy_text(rig: OpenRig, name: str, case: str) -> None:
    """Text, token ids and where the answer ends; the space before an answer is left out, that in a completion stays."""
    expected, question = golden(name, case), CASES[case]
    answer = rig(name).model.generate(
        question.pictures(), question.prompt, detail="high" if question.split else "low", max_tokens=NEW_TOKENS
    )
    text = expected["text"].item()
    assert list(answer.token_ids) == expected["token_ids"].tolist()
    assert answer.text == (text if FAMILY[name].is_base else text.lstrip())
    assert answer.finish_reason == ("length" if len(expected["token_ids"]) == NEW_TOKENS else "stop")


def test_readme_lists_the_family() -> None:
    section = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| \[?([\w.-]+)\b.*✓ \| ✓ \| ✓ \|", section, re.MULTILINE) == list(FAMILY)


# -- DocTags ------------------------------------------------------------------------------------------------------


@every_member
def test_doctags_survive_decoding(rig: OpenRig, name: str) -> None:
    """They are special tokens of the Docling models and ordinary text to the others."""
    encoder, expected = rig(name).model.prompt_encoder, golden(name, "doctags")
    detokenizer = Detokenizer(encoder.tokenizer, hidden=encoder.hidden_token_ids)
    text = "".join(map(detokenizer.push, expected["token_ids"].tolist())) + detokenizer.flush()
    assert text == expected["text"].item() == DOCTAGS


@pytest.mark.parametrize("name", DOCLING)
def test_an_answer_in_doctags_ends_without_its_end_token(rig: OpenRig, name: str) -> None:
    """Some of the goldens end at an end token and hold tags, or this tests nothing."""
    ended = [expected for case in CASES if len((expected := golden(name, case))["token_ids"]) < NEW_TOKENS]
    end = rig(name).model.prompt_encoder.tokenizer.id_to_token(int(ended[0]["token_ids"][-1]))
    assert end in ("<end_of_utterance>", "<|end_of_text|>")
    assert not any(end in expected["text"].item() for expected in ended)
    assert any(re.search("</?[a-z_]+>", golden(name, case)["text"].item()) for case in CASES)


def test_a_token_that_the_model_has_not(rig: OpenRig) -> None:
    """granite-docling's tokenizer has one more token than the model."""
    with pytest.raises(RequestError, match="<end_of_utterance>"):
        rig("granite-docling-258M").model.generate([], "What does <end_of_utterance> mean?")


# -- base models --------------------------------------------------------------------------------------------------


@base_members
def test_a_completion_keeps_its_space(name: str) -> None:
    """test_greedy_text would not show it without an answer that begins with one."""
    assert golden(name, "text")["text"].item().startswith(" ")


def test_a_base_model_completes_the_prompt(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """With the command, as a user does; the export says what it found."""
    name = "SmolVLM-256M-Base"
    exported = smol_edge("export", checkpoint(name), "--quant", "fp32", "--out", tmp_path / "bundle")
    assert exported.returncode == 0, exported.stderr
    assert "note: " in exported.stderr
    assert "no chat template" in exported.stderr
    run = smol_edge("run", CASES["text"].prompt, "--model", tmp_path / "bundle", "--max-tokens", NEW_TOKENS)
    assert run.returncode == 0, run.stderr
    assert run.stdout.removesuffix("\n") == golden(name, "text")["text"].item()


@base_members
def test_a_base_model_holds_no_conversation(rig: OpenRig, name: str) -> None:
    turns = [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")]
    with pytest.raises(RequestError, match="base model"):
        rig(name).model.prompt_encoder.encode(turns, [])


# -- saved by transformers 5, as after a fine-tuning ---------------------------------------------------------------


@pytest.mark.parametrize("name", SAVED_AGAIN)
def test_saved_by_transformers_5(checkpoint: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """The rotary base moves into `rope_parameters`, the picture's rules into processor_config.json."""
    folder, saved = tmp_path / name, GOLDENS / "saved-by-transformers-5" / name
    shutil.copytree(checkpoint(name), folder)
    if (saved / "processor_config.json").is_file():  # these are no longer written
        for file in ("chat_template.json", "preprocessor_config.json", "special_tokens_map.json"):
            (folder / file).unlink(missing_ok=True)
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    parts = Rig(export_checkpoint(folder, tmp_path / "bundle", RECIPES["fp32"]))
    for case in CASES:
        test_pixels_and_token_ids(lambda _: parts, name, case)
        test_logits(lambda _: parts, name, case)
        test_greedy_text(lambda _: parts, name, case)
    parts.close()
