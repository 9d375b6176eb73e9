"""Options of a wrong type are refused in one line by everything that takes them, and numpy's scalars are taken.

What is wrong is drawn from a heap of values, of which each option takes those that its documentation names.
"""

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from smolvlm_edge import Answer, RequestError, SmolEdgeError, SmolVLM
from smolvlm_edge.cli.commands import app
from smolvlm_edge.generation.answer import GenerateOptions

PROMPT = "What is it?"


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


@pytest.fixture(scope="module")
def model(bundle: Path) -> SmolVLM:
    return SmolVLM.load(bundle, threads=1)


# -- one wrong value for everything -------------------------------------------------------------------------------

COUNTS = ["5", 0, -1, 1.5, math.nan, True, [5], b"5", object()]
NUMBERS = ["0.5", math.nan, -9, True, [0.5], {}, object()]
FLAGS = ["yes", 1, 0.0, [], object(), None]
WRONG: dict[str, list[Any]] = {
    "max_tokens": [*COUNTS, None],
    "temperature": [*NUMBERS, None, math.inf, 10**400],
    "top_k": [*(each for each in COUNTS if each != 0 or each is True), None],
    "top_p": [*NUMBERS, None, 1.1],
    "min_p": [*NUMBERS, None, 1.1],
    "typical_p": [*NUMBERS, None, 1.1],
    "epsilon_cutoff": [*NUMBERS, None, 1],
    "eta_cutoff": [*NUMBERS, None, 1],
    "repetition_penalty": [*NUMBERS, None, 0],
    "presence_penalty": [*NUMBERS, None, 2.1],
    "frequency_penalty": [*NUMBERS, None, 2.1],
    "logit_bias": ["1", 1, None, [1], {"1": 1}, {1: "1"}, {1.5: 1}, {1: math.nan}, {True: 1}],
    "sequence_bias": ["1", 1, None, {1: 1}, [1], [[1, 1]], [[[1], "1"]], [[[], 1]], [[["a"], 1.0]], [[[1], 1, 1]]],
    "no_repeat_ngram_size": [*(each for each in COUNTS if each != 0 or each is True), None],
    "bad_words_ids": ["1", 1, None, [1], [[]], [["a"]], [[True]], {1: 1}, [[1.0]]],
    "suppress_tokens": ["1", 1, None, ["a"], [True], [1.0], [-1], {1}],
    "begin_suppress_tokens": ["1", 1, None, ["a"], [True], [1.0], [-1], {1}],
    "min_tokens": [each for each in COUNTS if each != 0 or each is True],
    "min_length": [*(each for each in COUNTS if each != 0 or each is True), None],
    "exponential_decay_length_penalty": ["1", 1, [], (1,), (1, 0), (1.5, 1.1), (1, "a"), (True, 1.1), (1, 1, 1)],
    "seed": ["x", 1.5, -1, True, [1], math.nan, object()],
    "top_logprobs": ["1", 1.5, -1, 21, True, [1], math.nan],
    "stop": [5, None, True, [5], ["a", None], {"a": 1}, b"a", object()],
    "stop_loops": FLAGS,
    "skip_special_tokens": FLAGS,
    "schema": [5, True, [1], b"{}", "{", object(), {"const": object()}, {"a": math.nan}],
    "regex": [5, True, b"a", ["a"], {}, ""],
    "choices": [3, True, "a", b"a", [], [1], [""], {"a": 1}, {"a"}],
    "on_limit": ["x", 5, None, True, ["error"], np.array(["error", "complete"])],
    "detail": ["x", 5, None, True, ["low"], {}, np.array(["low", "high"])],
    "allow_paths": FLAGS,
    "longest_edge": [*COUNTS, 10**9],
    "on_tile": [5, "print", None, True, []],
    "on_prefill": [5, "print", None, True, []],
    "cancel": [5, "x", True, object(), Event],
    "timeout": ["x", "5", 0, -1, math.nan, True, [1], object()],
}


def test_every_option_has_its_wrong_values() -> None:
    assert WRONG.keys() == GenerateOptions.__annotations__.keys()


async def _first(stream: Any) -> Any:
    return await anext(stream)


ENTRIES: dict[str, Callable[..., Any]] = {
    "generate": lambda model, options: model.generate(prompt=PROMPT, **options),
    "generate from messages": lambda model, options: model.generate(
        messages=[{"role": "user", "content": PROMPT}], **options
    ),
    "stream": lambda model, options: model.stream(prompt=PROMPT, **options),  # before it is read
    "astream": lambda model, options: asyncio.run(_first(model.astream(prompt=PROMPT, **options))),
    "measure": lambda model, options: model.measure(prompt=PROMPT, **options),
    "generate_many": lambda model, options: model.generate_many([], **options),
    "chat": lambda model, options: model.chat(**options),
    "Chat.ask": lambda model, options: model.chat().ask(PROMPT, **options),
    "Chat.stream": lambda model, options: model.chat().stream(PROMPT, **options),
    "Chat.astream": lambda model, options: asyncio.run(_first(model.chat().astream(PROMPT, **options))),
}


def assert_one_line(error: Exception, name: str) -> None:
    assert name in str(error) or name in ("schema", "choices", "regex"), error
    assert "\n" not in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_in_one_line(model: SmolVLM, entry: str, name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(RequestError) as caught:
            ENTRIES[entry](model, {name: value})
        assert_one_line(caught.value, name)


@pytest.mark.parametrize("name", WRONG)
def test_a_request_among_many_is_refused_in_its_place(model: SmolVLM, name: str) -> None:
    requests = [{"prompt": PROMPT, name: value} for value in WRONG[name]]
    for outcome in model.generate_many(requests):
        assert isinstance(outcome, RequestError)
        assert_one_line(outcome, name)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    name=st.sampled_from([*WRONG]),
    value=st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=4),
            st.complex_numbers(), st.just(object()), st.just(print), st.just(np.arange(3)), st.just(np.float32(0.5)),
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner),
        max_leaves=5,
    ),
)  # fmt: skip
def test_whatever_is_given_is_taken_or_refused(model: SmolVLM, name: str, value: Any) -> None:
    """Nothing but this project's own errors comes out, of the options and of the answer."""
    if name in ("timeout", "max_tokens"):
        options = {"max_tokens": 1, name: value}
    else:
        options = {"max_tokens": 2, "timeout": 60, name: value}
    try:
        stream = model.stream(prompt=PROMPT, **options)
        next(stream)
        stream.close()
    except SmolEdgeError as error:
        assert "\n" not in str(error)  # noqa: PT017
    except TypeError as error:
        assert name in ("on_tile", "on_prefill"), error  # noqa: PT017 - print takes what it gets, others need not


NUMPY: dict[str, Any] = {
    "max_tokens": np.int64(3),
    "temperature": np.float32(0.5),
    "top_k": np.int32(7),
    "top_p": np.float64(0.9),
    "min_p": np.float16(0.25),
    "repetition_penalty": np.float32(1.5),
    "seed": np.uint8(4),
    "top_logprobs": np.int8(2),
    "longest_edge": np.int64(90),
    "timeout": np.float32(60),
    "min_tokens": np.int64(2),
    "stop_loops": np.bool_(True),
    "suppress_tokens": [np.int64(134), np.int32(9)],
    "bad_words_ids": [[np.int64(3), np.int64(4)]],
    "logit_bias": {np.int64(254): np.float32(3.0)},
    "sequence_bias": [([np.int64(3), 4], np.float64(2.0))],
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpys_scalars_are_taken(model: SmolVLM, name: str) -> None:
    """And mean what Python's numbers mean."""
    picture = np.full((100, 60, 3), 77, np.uint8)
    others = {"max_tokens": 3, "temperature": 0.7, "seed": 1}
    plain = (
        json.loads(json.dumps(NUMPY[name], default=lambda each: each.item())) if name != "logit_bias" else {254: 3.0}
    )
    expected = model.generate(picture, PROMPT, **{**others, name: plain})
    for entry in (
        model.generate,
        lambda *args, **options: next(model.generate_many([{"images": args[0], "prompt": args[1], **options}])),
    ):
        answer = entry(picture, PROMPT, **{**others, name: NUMPY[name]})
        assert isinstance(answer, Answer)
        assert (answer.token_ids, answer.text) == (expected.token_ids, expected.text)
    size = model.measure(picture, PROMPT, **{name: NUMPY[name]})
    assert size == model.measure(picture, PROMPT, **{name: plain})


# -- what is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [5, None, True, b"describe", object(), {"a": 1}, [5], [{"type": 5}]])
def test_a_prompt_of_a_wrong_type_is_refused(model: SmolVLM, prompt: Any) -> None:
    for ask in (partial(model.generate, []), model.chat().ask, partial(model.measure, [])):
        with pytest.raises(RequestError):
            ask(prompt)
    (outcome,) = model.generate_many([{"prompt": prompt}])
    assert isinstance(outcome, RequestError)


@pytest.mark.parametrize("images", [5, 1.5, True, object(), {"a": 1}, [None], [[5]], print, {1, 2}])
def test_pictures_of_a_wrong_type_are_refused(model: SmolVLM, images: Any) -> None:
    for ask in (model.generate, model.measure, lambda images, prompt: model.chat().ask(prompt, images)):
        with pytest.raises(ValueError) as caught:  # RequestError and ImageError are one  # noqa: PT011
            ask(images, PROMPT)
        assert isinstance(caught.value, SmolEdgeError)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("messages", [5, True, "describe", b"x", object(), {"role": "user"}, [5], [{"role": []}], []])
def test_messages_of_a_wrong_type_are_refused(model: SmolVLM, messages: Any) -> None:
    with pytest.raises(RequestError):
        model.generate(messages=messages)


@pytest.mark.parametrize("request_", ["photo.jpg", 5, None, ["a"], object()])
def test_a_request_that_is_none_is_refused_in_its_place(model: SmolVLM, request_: Any) -> None:
    refused, answer = model.generate_many([request_, {"prompt": PROMPT, "max_tokens": 1}])
    assert isinstance(refused, RequestError)
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("requests", [5, None, True, object()])
def test_requests_that_are_none_are_refused(model: SmolVLM, requests: Any) -> None:
    with pytest.raises(RequestError, match="requests"):
        model.generate_many(requests)


@pytest.mark.parametrize("wrong", [{"system": 5}, {"system": ["a"]}, {"on_full": "x"}, {"on_full": 5}])
def test_a_chat_of_a_wrong_type_is_refused(model: SmolVLM, wrong: Mapping[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        model.chat(**wrong)


# -- loading ---------------------------------------------------------------------------------------------------------

LOADING: dict[str, list[Any]] = {
    "model": [5, True, b"demo", ["demo"], object()],
    "quant": [5, None, True, ["int4"]],
    "offline": FLAGS,
    "engine": [5, None, True, ["onnxruntime"], "x", "vision=x"],
    "threads": [*COUNTS, 10**9],
    "memory": ["x", 5, None, True, ["low"]],
    "busy": ["x", 5, None, True, ["wait"]],
    "parallel": ["x", "5", 0, -1, 1.5, True, None, [1], 10**9, object()],
    "cache_bytes": COUNTS,
    "trust": FLAGS,
    "engine_options": [5, True, "x", [1], {"onnxruntime": 5}, {5: {}}, {"x": {}}, {"onnxruntime": {5: 1}}],
    "measure": FLAGS,
}


@pytest.mark.parametrize("name", LOADING)
def test_loading_refuses_a_wrong_value_in_one_line(bundle: Path, name: str) -> None:
    for value in LOADING[name]:
        with pytest.raises(RequestError) as caught:
            SmolVLM.load(**{"model": bundle, name: value})
        assert name in str(caught.value) or name == "engine"
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_loading_takes_numpys_scalars(bundle: Path) -> None:
    options = {"threads": np.int64(1), "parallel": np.int32(2), "cache_bytes": np.int64(1 << 24)}
    with SmolVLM.load(bundle, offline=np.bool_(True), **options) as model:
        assert model.width.count == 2
        assert model.generate(prompt=PROMPT, max_tokens=1).token_ids


# -- the command line and the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        ("--max-tokens", "x"), ("--max-tokens", "0"), ("--max-tokens", "1.5"), ("--temperature", "hot"),
        ("--temperature", "nan"), ("--temperature", "-1"), ("--top-k", "1.5"), ("--top-k", "-1"), ("--top-p", "0"),
        ("--top-p", "x"), ("--min-p", "2"), ("--repetition-penalty", "0"), ("--seed", "x"), ("--seed", "-1"),
        ("--threads", "0"), ("--threads", "x"), ("--longest-edge", "0"), ("--longest-edge", "x"), ("--detail", "x"),
        ("--engine", "x"), ("--engine-option", "x"), ("--quant", "x"), ("--frames", "x"), ("--fps", "0"),
        ("--start", "x"), ("--end", "1:2:3:4"), ("--choices", ""), ("--regex", ""), ("--regex", "("),
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_command_refuses_a_wrong_value(option: tuple[str, str]) -> None:
    """Before it looks for a model."""
    line = ["run", "examples/shapes.png", PROMPT, "--model", "./none", *option]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2 or isinstance(result.exception, RequestError), result.output


BODIES: dict[str, list[Any]] = {
    "max_tokens": ["5", 1.5, True, [5], 0],
    "temperature": ["0.5", True, [1], -1],
    "top_k": ["5", 1.5, True, -1],
    "top_p": ["x", 0, 1.1, True],
    "min_p": ["x", 1.1, True],
    "repetition_penalty": ["x", 0, True],
    "presence_penalty": ["x", 2.1, True],
    "frequency_penalty": ["x", -2.1, True],
    "logit_bias": [5, [1], {"a": 1}, {"1": "x"}, {"1": 101}],
    "seed": ["x", 1.5, True],
    "stop": [5, [5], {"a": 1}, True],
    "regex": [5, ["a"], ""],
    "choices": [3, "a", [1], []],
    "on_limit": ["x", 5],
    "skip_special_tokens": ["x", 5],
    "messages": [5, "describe", [5], [{"role": 5}], []],
    "model": [5, []],
    "stream": ["x", 5],
    "n": ["x", 2, True],
}


@pytest.mark.parametrize("name", BODIES)
def test_the_server_refuses_a_wrong_value(name: str) -> None:
    serving = pytest.importorskip("serving")
    with serving.client() as http:
        for value in BODIES[name]:
            body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1, name: value}
            response = http.post("/v1/chat/completions", json=body)
            assert response.status_code == 400, (value, response.text)
            message = response.json()["error"]["message"]
            assert "\n" not in message
            assert len(message) < 300
