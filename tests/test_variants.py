"""Rotary scaling, odd head sizes, patch positions and generation_config.json, each against transformers 5.23.

The checkpoints are those of variants.py, the goldens are made by make_variants.py.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rig import Rig, assert_close, read_golden
from variants import GENERATIONS, HEADS, NEW_TOKENS, POSITIONS, ROPES, VARIANTS, write_variant

from smolvlm_edge import SmolVLM
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.engines import EngineName
from smolvlm_edge.quantize import RECIPES

GOLDENS = Path(__file__).parent / "goldens" / "variants.npz"
ENGINES: list[EngineName] = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """bundle(name): a variant exported for both engines."""

    @cache
    def export(name: str) -> Path:
        folder = tmp_path_factory.mktemp("variants") / name
        checkpoint = write_variant(folder / "checkpoint", VARIANTS[name])
        return export_checkpoint(checkpoint, folder / "bundle", RECIPES["fp32"], targets=("onnx", "openvino"))

    return export


@pytest.fixture(params=ENGINES)
def rig(request: pytest.FixtureRequest, bundle: Callable[[str], Path]) -> Iterator[Callable[[str], Rig]]:
    opened: list[Rig] = []

    def open_rig(name: str) -> Rig:
        opened.append(Rig(bundle(name), request.param))
        return opened[-1]

    yield open_rig
    for each in opened:
        each.close()


@pytest.mark.parametrize("name", [*ROPES, *HEADS, *POSITIONS])
def test_logits_and_tokens(rig: Callable[[str], Rig], name: str) -> None:
    expected, parts, question = read_golden(GOLDENS, name), rig(name), VARIANTS[name].question
    features = {"image_features": parts.image_features(question)} if question.sizes else {}
    assert_close(parts.start({"input_ids": parts.input_ids(question), **features}), expected["logits"])
    answer = parts.model.generate(
        question.pictures(), question.prompt, detail="high" if question.split else "low", max_tokens=NEW_TOKENS
    )
    assert list(answer.token_ids) == expected["token_ids"].tolist()


@pytest.mark.parametrize("name", GENERATIONS)
def test_generation_config_is_followed(bundle: Callable[[str], Path], name: str) -> None:
    expected = read_golden(GOLDENS, name)["token_ids"].tolist()
    length = {} if "max_new_tokens" in VARIANTS[name].generation else {"max_tokens": NEW_TOKENS}
    with SmolVLM.load(bundle(name), engine="onnxruntime") as model:
        assert list(model.generate(prompt=VARIANTS[name].question.prompt, **length).token_ids) == expected


def test_the_callers_options_come_first(bundle: Callable[[str], Path]) -> None:
    greedy = read_golden(GOLDENS, "greedy")["token_ids"].tolist()
    neutral = {
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "bad_words_ids": [],
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
        "max_tokens": NEW_TOKENS,
    }
    with SmolVLM.load(bundle("all"), engine="onnxruntime") as model:
        assert list(model.generate(prompt=VARIANTS["all"].question.prompt, **neutral).token_ids) == greedy
    with SmolVLM.load(bundle("sampled-by-nucleus"), engine="onnxruntime") as model:
        options = {"temperature": 0.0, "max_tokens": NEW_TOKENS}
        assert list(model.generate(prompt=VARIANTS["all"].question.prompt, **options).token_ids) == greedy


def test_variants_answer_differently() -> None:
    """Or the goldens would not tell whether anything was done."""
    for group in (
        ROPES,
        HEADS,
        POSITIONS,
        {k: v for k, v in GENERATIONS.items() if not k.startswith(("sampled", "greedy-"))},
    ):
        answers = [tuple(read_golden(GOLDENS, name)["token_ids"].tolist()) for name in group]
        assert len(np.unique(answers, axis=0) if len({*map(len, answers)}) == 1 else {*answers}) == len(answers)
