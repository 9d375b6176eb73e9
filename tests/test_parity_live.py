"""A checkpoint of full size: against transformers, token by token, and in a conversation that makes sense.

Set SMOL_EDGE_STAND_IN to a checkpoint folder of the 256M shape (`make stand-in`). Text only, because a stand-in may
have a trained decoder and an untrained vision tower.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from smolvlm_edge import SmolVLM
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxDecoder
from smolvlm_edge.quantize import RECIPES

pytestmark = [
    pytest.mark.parity,
    # what transformers and torch warn of on import is theirs to mend
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::torch"),
]

CAPITAL = "What is the capital of France?"
PROMPTS = (CAPITAL, "Write one sentence about the sea.", "Count from 1 to 10 and say which of them are even.")
NEW_TOKENS = 64
SYSTEM = (
    "You are the guide of a small travel agency. You know the countries of Europe, their capitals, their rivers and "
    "their mountains, and you help people who plan a journey to decide where to go, when to go and what to see there. "
    "You are polite and patient. You never make up opening hours, prices or telephone numbers: if you do not know "
    "something, you say so. You do not talk about politics, and you do not sell anything. Many of the people who ask "
    "you are travelling for the first time, so you use plain words and explain what they may not know. "
    "Answer every question in one short sentence."
)


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    folder = os.environ.get("SMOL_EDGE_STAND_IN")
    if not folder:
        pytest.skip("SMOL_EDGE_STAND_IN names no checkpoint folder: make stand-in")
    return Path(folder)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Prompt and greedy answer of transformers in float32; its model is gone before ours is loaded."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    answers = {}
    for prompt in PROMPTS:
        conversation = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt")
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)[0].tolist()
        length = inputs["input_ids"].shape[1]
        answers[prompt] = ids[:length], ids[length:]
    return answers


@pytest.fixture(scope="module")
def load(checkpoint: Path) -> Iterator[Callable[[str], SmolVLM]]:
    """load(quant): the checkpoint exported and loaded, once; gigabytes that pytest's own tmp_path would keep."""
    models: dict[str, SmolVLM] = {}
    with TemporaryDirectory(prefix="smol-edge-") as folder:

        def load_quant(quant: str) -> SmolVLM:
            if quant not in models:
                bundle = export_checkpoint(checkpoint, Path(folder) / quant, RECIPES[quant])
                models[quant] = SmolVLM.load(bundle)
            return models[quant]

        yield load_quant
        for model in models.values():
            model.close()  # Windows does not remove a file that is still mapped


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text(
    reference: dict[str, tuple[list[int], list[int]]], load: Callable[[str], SmolVLM], prompt: str
) -> None:
    prompt_ids, expected = reference[prompt]
    model = load("fp32")
    answer = model.generate([], prompt, max_tokens=NEW_TOKENS)
    # transformers stops at the token of generation_config.json only, smol-edge also at the text model's own
    stops = [position for position, token in enumerate(expected, start=1) if token in model.bundle.model.eos_token_ids]
    assert answer.timings.prompt_tokens == len(prompt_ids)
    assert list(answer.token_ids) == expected[: min(stops, default=NEW_TOKENS)]


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_the_capital_of_france(load: Callable[[str], SmolVLM], quant: str) -> None:
    assert "Paris" in load(quant).generate([], CAPITAL, max_tokens=NEW_TOKENS).text


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_a_conversation(load: Callable[[str], SmolVLM], quant: str) -> None:
    """Three turns that know their answers, each as a model answers it that has seen nothing of the turns before."""
    model = load(quant)
    model.close()  # whatever it was asked before is forgotten
    chat, fresh = model.chat(SYSTEM, max_tokens=16), SmolVLM.load(model.bundle.folder)
    for country, capital in (("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid")):
        question = f"What is the capital of {country}?"
        messages = [*chat.messages, {"role": "user", "content": question}]
        answer = chat.ask(question)
        assert capital in answer.text.splitlines()[0]  # a small model goes on with questions of its own
        assert answer.timings.cached_tokens == (0 if country == "France" else OnnxDecoder.chunk)
        assert answer.token_ids == fresh.generate(messages=messages, max_tokens=16).token_ids
        fresh.close()
