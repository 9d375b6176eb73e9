"""`top_logprobs`: how likely the model found the tokens of an answer."""

import math

import numpy as np
import pytest

from smolvlm_edge import RequestError, SmolVLM
from smolvlm_edge.generation.logprobs import Logprobs

QUESTION = "Tell me a story."


@pytest.fixture(scope="module")
def model(tiny_bundle) -> SmolVLM:
    return SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"), threads=1)


def test_natural_logarithms_of_a_distribution() -> None:
    probabilities = [0.125, 0.5, 0.25, 0.125]
    logprobs = Logprobs.of(np.log(np.array(probabilities, np.float32)) + 700, 3, 3)
    assert logprobs.chosen == pytest.approx(math.log(0.125), rel=1e-4)
    assert [token for token, _ in logprobs.top] == [1, 2, 0]
    assert [math.exp(each) for _, each in logprobs.top] == pytest.approx([0.5, 0.25, 0.125], rel=1e-4)
    assert Logprobs.of(np.zeros(4, np.float32), 0, 9).top == tuple((token, -math.log(4)) for token in range(4))
    assert Logprobs.of(np.zeros(4, np.float32), 0, 0).top == ()


def test_every_chunk_has_them_if_they_were_asked_for(model: SmolVLM) -> None:
    plain = model.generate([], QUESTION, max_tokens=5)
    assert plain.logprobs == ()
    chunks = list(model.stream([], QUESTION, max_tokens=5, top_logprobs=3))
    assert tuple(chunk.token_id for chunk in chunks) == plain.token_ids
    for chunk in chunks:
        assert chunk.logprobs is not None
        (likeliest, highest), *others = chunk.logprobs.top
        assert (likeliest, highest) == (chunk.token_id, chunk.logprobs.chosen), "the answer is greedy"
        assert 0 >= highest >= others[0][1] >= others[1][1]
    answer = model.generate([], QUESTION, max_tokens=5, top_logprobs=0)
    assert [each.top for each in answer.logprobs] == [()] * 5
    assert [each.chosen for each in answer.logprobs] == [chunk.logprobs.chosen for chunk in chunks if chunk.logprobs]


def test_they_are_the_models_own_whatever_chose_the_token(model: SmolVLM) -> None:
    plain = model.generate([], QUESTION, max_tokens=1, top_logprobs=20)
    wish: dict = {"max_tokens": 1, "top_logprobs": 20, "repetition_penalty": 3.0, "temperature": 5.0, "seed": 0}
    changed = model.generate([], QUESTION, **wish)
    assert changed.logprobs[0].top == plain.logprobs[0].top
    one_of = model.generate([], QUESTION, max_tokens=2, choices=["a", "b"], on_limit="complete", top_logprobs=20)
    assert one_of.logprobs[0].top == plain.logprobs[0].top


@pytest.mark.parametrize("wrong", [-1, 21, 1.5, "3"])
def test_a_number_that_makes_no_sense_is_refused(model: SmolVLM, wrong) -> None:
    with pytest.raises(RequestError, match="top_logprobs"):
        model.generate([], QUESTION, top_logprobs=wrong)
