"""Answers of a given form: always valid, whatever the model wants to say, or an error that says why not."""

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from llguidance import LLParserLimits
from schemas import judge, schemas
from tiny_tokenizers import make_tokenizer
from tokenizers import Tokenizer

from smolvlm_edge import IncompleteError, RequestError, SmolVLM
from smolvlm_edge.constraints import OnLimit, endings, read_constraint
from smolvlm_edge.constraints.endings import Endings
from smolvlm_edge.constraints.guide import Guide
from smolvlm_edge.constraints.vocabulary import Vocabulary
from smolvlm_edge.demo.bundle import __path__ as demo_folders

STORY = "Tell me a story."
END = "<end_of_utterance>"
EXAMPLES = int(os.environ.get("SMOL_EDGE_EXAMPLES", "15"))
"""Of every property here; 500 take minutes."""
unhurried = settings(
    deadline=None,
    max_examples=EXAMPLES,
    derandomize="SMOL_EDGE_EXAMPLES" not in os.environ,  # few examples are a check, many are a search
    suppress_health_check=list(HealthCheck),
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tiny_bundle) -> SmolVLM:
    return SmolVLM.load(tiny_bundle("tiny-idefics3", "fp32"), threads=1)


@pytest.fixture(scope="module")
def demo() -> SmolVLM:
    return SmolVLM.load("demo", threads=1)


# -- whatever a model wants to say: random scores -------------------------------------------------------------------

TOKENIZERS: dict[str, Callable[[], tuple[Tokenizer, str]]] = {
    "demo": lambda: (Tokenizer.from_file(str(Path(demo_folders[0]) / "tokenizer.json")), END),
    "SmolLM2": lambda: (make_tokenizer("SmolLM2"), END),
    "Granite": lambda: (make_tokenizer("Granite"), "<|end_of_text|>"),
    "Llama 3": lambda: (make_tokenizer("Llama 3"), "<|end_of_text|>"),
}
VOCABULARIES: dict[str, tuple[Tokenizer, Vocabulary, int]] = {}


def vocabulary(name: str) -> tuple[Tokenizer, Vocabulary, int]:
    """Tokenizer, vocabulary and size of the model's; Granite's model has one token less than its tokenizer."""
    if name not in VOCABULARIES:
        tokenizer, end = TOKENIZERS[name]()
        size = tokenizer.get_vocab_size() + (-1 if name == "Granite" else 3)
        special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        VOCABULARIES[name] = tokenizer, Vocabulary(tokenizer, size, [tokenizer.token_to_id(end)], special), size
    return VOCABULARIES[name]


def write(
    options: dict, max_tokens: int, on_limit: OnLimit = "error", seed: int = 0, name: str = "demo"
) -> tuple[str, bool]:
    """What a model without any sense writes, and whether it came to an end by itself or by the guide."""
    constraint = read_constraint(options)
    assert constraint is not None
    tokenizer, words, size = vocabulary(name)
    random = np.random.default_rng(seed)
    guide = Guide(constraint, " ", words, lambda scores: int(scores.argmax()), max_tokens, on_limit, nullcontext)
    ids: list[int] = []
    while len(ids) < max_tokens and not guide.ended and not guide.cut:
        ids.append(guide(random.normal(size=size).astype(np.float32)))
        if ids[-1] in words.eos_token_ids:
            break
    finished = guide.ended or guide.cut or ids[-1] in words.eos_token_ids
    text = tokenizer.decode([id_ for id_ in ids if id_ not in words.eos_token_ids], skip_special_tokens=False)
    assert text.startswith(" ")
    return text[1:], finished


@unhurried
@given(
    schema=schemas(),
    seed=st.integers(0, 99),
    max_tokens=st.sampled_from([2, 9, 30, 80]),
    name=st.sampled_from([*TOKENIZERS]),
)
def test_an_answer_to_any_schema_is_completed_in_time(schema: dict, seed: int, max_tokens: int, name: str) -> None:
    """Or it is said beforehand that there is no room."""
    try:
        text, _ = write({"schema": schema}, max_tokens, "complete", seed, name)
    except RequestError as error:
        assert "no room" in str(error)  # noqa: PT017
        return
    judge(text, schema)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "regex", [r"\d{2}-[a-f]+", "(?i)ja|nein", " *é+日?", "a/b\n", "^x.{3}$", r"\s[A-Z]", "🦭{2,4}!"]
)
def test_a_regex_matches_the_whole_answer(name: str, regex: str) -> None:
    """White space at the beginning is a part of it."""
    for seed in range(3):
        text, _ = write({"regex": regex}, 40, "complete", seed, name)
        assert re.fullmatch(regex, text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_is_one_of_the_choices(name: str) -> None:
    choices = [
        "yes",
        "yes, of course",
        "no",
        'a "quoted" \\ word',
        "größe",
        "日本",
        " two  spaces",
        "<row_1_col_1>",
        "\n",
    ]
    found = {write({"choices": choices}, 60, seed=seed, name=name)[0] for seed in range(12)}
    assert found <= set(choices)
    assert len(found) > 2


# -- the limit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"schema": PERSON},
        {"schema": {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 2}},
        {"schema": {"anyOf": [PERSON, {"type": "array", "items": {"$ref": "#"}}, {"enum": ["red", "greenish"]}]}},
        {"regex": "([a-z]{3} )+(END|Finally)"},
        {"choices": ["a red circle", "a red circle and a blue star", "no"]},
    ],
    ids=["object", "dates", "union", "regex", "choices"],
)
def test_with_every_limit(options: dict) -> None:
    """From some limit on there is an answer, and for every larger one; always valid."""
    judges: dict[str, Callable[[str], object]] = {
        "schema": lambda text: judge(text, options["schema"]),
        "regex": lambda text: re.fullmatch(options["regex"], text) or pytest.fail(text),
        "choices": lambda text: text in options["choices"] or pytest.fail(text),
    }
    answered = []
    for max_tokens in (*range(1, 24), 40, 100):
        try:
            text, _ = write(options, max_tokens, "complete", seed=max_tokens)
        except RequestError:
            answered.append(False)
            continue
        answered.append(True)
        judges[next(iter(options))](text)
    assert answered == sorted(answered)
    assert answered[-1]


@unhurried
@given(st.lists(st.text("abc", min_size=1, max_size=7), min_size=1, max_size=8, unique=True), st.data())
def test_the_ending_is_the_shortest(choices: list[str], data: st.DataObject) -> None:
    """Of finitely many texts it is known."""
    begun = data.draw(st.sampled_from(choices))
    begun = begun[: data.draw(st.integers(0, len(begun)))]
    constraint = read_constraint({"choices": choices})
    assert constraint is not None
    endings = Endings(constraint.grammar())
    assert endings.follow(begun.encode(), lambda _: True)
    endings.shorten()
    assert endings.ending is not None
    assert begun + endings.ending.decode() in choices
    assert len(endings.ending) == min(len(text) - len(begun) for text in choices if text.startswith(begun))


@pytest.mark.parametrize(
    ("options", "begun", "ending"),
    [
        ({"schema": PERSON}, "", '{"name": "", "age": 18}'),
        ({"schema": PERSON}, '{"name": "A \\', '"", "age": 18}'),
        ({"schema": {}}, '[[{"a": [1, tr', "ue]}]]"),
        ({"schema": {"type": "integer", "multipleOf": 13, "minimum": 1000}}, "", "1001"),
        ({"regex": "[^x]*x"}, "abc", "x"),
        ({"regex": "(ab|cd)*e"}, "c", "de"),
        ({"regex": "(a{9}|bb)c"}, "", "bbc"),
    ],
)
def test_shortest_endings_that_are_known(options: dict, begun: str, ending: str) -> None:
    constraint = read_constraint(options)
    assert constraint is not None
    endings = Endings(constraint.grammar())
    assert endings.follow(begun.encode(), lambda _: True)
    endings.shorten()
    assert endings.ending is not None
    assert len(endings.ending) == len(ending)


def test_a_form_that_nothing_ends_has_no_ending() -> None:
    """An object in an object, for ever."""
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(RequestError):
        write({"schema": endless}, 50, "complete")


def test_where_no_ending_is_found_none_is_promised() -> None:
    with pytest.raises(RequestError, match="no end was found"):
        write({"regex": "([a-z]{3} )+end"}, 50, "complete")


# -- the object -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 3, "top_p": 0.9, "repetition_penalty": 1.3}])
def test_every_way_to_ask(model: SmolVLM, options: dict) -> None:
    wish = {"schema": PERSON, "max_tokens": 40, "on_limit": "complete", **options}
    chunks = list(model.stream([], STORY, **wish))
    text = "".join(chunk.text for chunk in chunks)
    judge(text, PERSON)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason is not None
    assert chunks[-1].timings.constraint_ms > 0
    messages = [{"role": "user", "content": STORY}]
    assert model.generate([], STORY, **wish).text == text
    assert model.generate(messages=messages, **wish).text == text
    assert model.chat().ask(STORY, **wish).text == text
    assert model.chat(**wish).ask(STORY).text == text


def test_openvino_keeps_to_it_too(tiny_bundle) -> None:
    with SmolVLM.load(tiny_bundle("tiny-idefics3", "int8", "openvino"), threads=1) as model:
        judge(model.generate([], STORY, schema=PERSON, max_tokens=30, on_limit="complete").text, PERSON)


def test_the_demonstration_model_chooses_what_it_sees(demo: SmolVLM) -> None:
    """A form does not keep it from being right, and its answers begin with a space that is not in the choices."""
    picture = Path(__file__).parent.parent / "examples" / "shapes.png"
    choices = ["Yes, there is a red circle.", "No, there is no red circle."]
    assert demo.generate(picture, "Is there a red circle?", choices=choices).text == choices[0]


@unhurried
@given(schema=schemas(), max_tokens=st.sampled_from([9, 60, 150]))
def test_the_demonstration_model_answers_any_schema(demo: SmolVLM, schema: dict, max_tokens: int) -> None:
    """`SMOL_EDGE_EXAMPLES=600 pytest -k model_answers_any --hypothesis-show-statistics` for many of them."""
    try:
        answer = demo.generate([], "describe", schema=schema, max_tokens=max_tokens, on_limit="complete")
    except RequestError as error:
        event("refused")
        assert "no room" in str(error) or "no end was found" in str(error)  # noqa: PT017
        return
    event("answered")
    judge(answer.text, schema)


def test_an_answer_that_is_cut_off_is_an_error(model: SmolVLM) -> None:
    with pytest.raises(IncompleteError, match="limit of 4 tokens"):
        model.generate([], STORY, schema=PERSON, max_tokens=4)
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


def test_a_stop_text_that_cuts_an_answer_off_is_an_error(model: SmolVLM) -> None:
    with pytest.raises(IncompleteError, match="stop text"):
        model.generate([], STORY, schema=PERSON, max_tokens=60, on_limit="complete", stop='"age"')
    answer = model.generate([], STORY, choices=["one, two"], stop="three")
    assert answer.text == "one, two"
    assert answer.finish_reason == "stop"
    assert model.generate([], STORY, regex="(one)(, two)?", stop=",").text == "one"


def test_a_pydantic_model_is_a_schema(model: SmolVLM) -> None:
    class Person:
        """Has what a Pydantic model has."""

        @staticmethod
        def model_json_schema() -> dict:
            return PERSON

    for schema in (Person, json.dumps(PERSON)):
        answer = model.generate([], STORY, schema=schema, max_tokens=30, on_limit="complete")
        jsonschema.validate(json.loads(answer.text), PERSON)


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "greater than maximum"),
        ({"schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"schema": {"type": "wibble"}}, "wibble"),
        ({"schema": {"$ref": "https://example.com/schema"}}, "not fetch"),
        ({"schema": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, "write anyOf"),
        ({"schema": "{"}, "no JSON"),
        ({"schema": [1]}, "object"),
        ({"schema": {"const": object()}}, "no JSON"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": r"[^\s\S]"}, "nothing fulfils it"),
        ({"regex": ""}, "empty"),
        ({"regex": "\ud800"}, "Unicode"),
        ({"choices": []}, "empty"),
        ({"choices": ["a", ""]}, "not empty"),
        ({"choices": "ab"}, "list"),
        ({"choices": ["a"], "regex": "a"}, "exclude each other"),
        ({"on_limit": "stop"}, "error, complete"),
    ],
)
def test_what_makes_no_sense_is_refused(model: SmolVLM, options: dict, words: str) -> None:
    """When the stream is asked for, before anything is computed."""
    with pytest.raises(RequestError, match=words):
        model.stream([], STORY, **options)


def test_the_command_writes_json_that_fulfils_the_schema(tiny_bundle, tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text(json.dumps(PERSON))
    options = (
        "--model",
        tiny_bundle("tiny-idefics3", "fp32"),
        "--schema",
        tmp_path / "person.json",
        "--max-tokens",
        30,
    )
    result = smol_edge("run", STORY, *options, "--complete")
    assert result.returncode == 0, result.stderr
    judge(result.stdout, PERSON)
    report = json.loads(smol_edge("run", STORY, *options, "--complete", "--json").stdout)
    judge(report["text"], PERSON)
    assert report["constraint_ms"] > 0
    cut = smol_edge("run", STORY, *options[:-1], 5)
    assert_fails(cut, 1, "cut off", "--complete")
    assert cut.stdout == ""


def test_the_command_refuses_before_it_looks_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"type": ')
    (tmp_path / "bad.json").write_text('{"type": "array", "uniqueItems": true}')
    run = ("run", STORY, "--model", tmp_path / "no-model")
    assert_fails(smol_edge(*run, "--schema", tmp_path / "missing.json"), 2, "missing.json", "No such file")
    assert_fails(smol_edge(*run, "--schema", tmp_path / "torn.json"), 2, "torn.json", "no JSON")
    assert_fails(smol_edge(*run, "--schema", tmp_path / "bad.json"), 2, "uniqueItems")
    assert_fails(smol_edge(*run, "--choices", "a,b", "--regex", "a"), 2, "exclude each other")
    assert_fails(smol_edge(*run, "--complete"), 2, "--schema")
    without = "sys.modules['llguidance'] = None; import importlib.util as u; f = u.find_spec\n"
    without += "u.find_spec = lambda name, *a: None if name == 'llguidance' else f(name, *a)"
    assert_fails(smol_edge(*run, "--choices", "a,b", patch=without), 2, "pip install 'smol-edge[json]'")


def test_a_choice_may_hold_a_comma(tiny_bundle) -> None:
    options = ("--model", tiny_bundle("tiny-idefics3", "fp32"))
    result = smol_edge("run", STORY, *options, "--choices", '"one, two", "one, two, three"')
    assert result.stdout.strip() in ("one, two", "one, two, three")


def test_nothing_is_imported_for_a_free_answer() -> None:
    program = "import sys, smolvlm_edge; sys.exit('llguidance' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0


# -- what asks for too much -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schema": {"type": "integer", "multipleOf": 1000003}}, "multipleOf 1000003"),
        ({"schema": {"properties": {"a": {"anyOf": [{"multipleOf": 2147483648}]}}}}, "multipleOf"),
        ({"schema": {"type": "number", "multipleOf": 1234.5678}}, "multipleOf"),
        ({"choices": [f"choice {number}" for number in range(100_000)]}, "choices"),
        ({"choices": ["a" * 1_000_000]}, "characters"),
        ({"regex": "(" * 5_000}, "regex"),
        ({"regex": "a" * 1_000_000}, "characters"),
        ({"schema": {"enum": ["a" * 1_000_000]}}, "characters"),
        ({"regex": "((a{500}){500}){500}"}, "repeats"),
        ({"regex": "(((((a{9}){9}){9}){9}){9}){9}"}, "repeats"),
        ({"regex": "(x|(yes{2,}){ 500 }){500,501}"}, "repeats"),
        ({"regex": r"a{500}?{500}|\p{L}*"}, "repeats"),
        ({"regex": "[]a(]{99999999999999}"}, "repeats"),
        ({"schema": {"items": [{"pattern": "^((a{500}){500}){500}$"}]}}, "pattern .* repeats"),
        ({"regex": "é" * 3_000 + "("}, "unclosed group"),
    ],
)
def test_what_asks_for_too_much_is_refused_in_one_short_line(options: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read_constraint(options)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_what_llguidance_gives_up_on_ends_in_one_line(model: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    few = LLParserLimits(max_lexer_states=20, verbose_errors=False)  # 60 tokens reach no 50,000
    monkeypatch.setattr(endings, "limits", lambda: few)
    with pytest.raises(RequestError) as raised:
        model.generate([], "go on", regex="[ab]*a[ab]{20}", max_tokens=60)
    assert "\n" not in str(raised.value)
    assert re.search("llguidance.*states", str(raised.value))


@pytest.mark.parametrize("multiple", [7, 0.01, 1e-7, 99_991])
def test_other_multiples_are_kept_to(multiple: float) -> None:
    assert read_constraint({"schema": {"type": "number", "multipleOf": multiple}}) is not None


@pytest.mark.parametrize(
    "regex",
    [
        "(a{1,500}){1,500}",
        "([a-z]{100}){500}",
        r"(\({9}){9}",
        r"[\](a{9}){900}]{300}",
        r"\p{L}{9}",
        "(?x)a{ 3 }",
    ],
)
def test_repeats_that_are_not_too_many_are_kept_to(regex: str) -> None:
    assert read_constraint({"regex": regex}) is not None


@pytest.mark.parametrize("name", ["demo", "Granite", "Llama 3"])
@pytest.mark.parametrize("text", ["an <image> tag", "<|end_of_text|>", "<end_of_utterance> <image><image>", "<doctag>"])
def test_texts_that_are_spelled_like_special_tokens(name: str, text: str) -> None:
    """Spelled in ordinary tokens: the one of that name would be no text, or end the answer."""
    assert write({"choices": [text]}, 200, name=name)[0].strip() == text


def test_special_tokens_that_are_text_may_be_part_of_a_form() -> None:
    """DocTags of a model that writes them: taken as tokens where there is a choice, and never the end of an answer."""
    tokenizer, end = TOKENIZERS["Granite"]()
    added = tokenizer.get_added_tokens_decoder().items()
    hidden = {id_ for id_, token in added if token.special and token.content != "<fcel>"}
    words = Vocabulary(tokenizer, tokenizer.get_vocab_size(), [tokenizer.token_to_id(end)], hidden)
    fcel = tokenizer.token_to_id("<fcel>")

    def written(options: dict) -> list[int]:
        constraint = read_constraint(options)
        assert constraint is not None
        guide = Guide(constraint, "", words, lambda scores: int(scores.argmax()), 40, "error", nullcontext)
        ids: list[int] = []
        while not guide.ended:
            ids.append(guide(np.eye(1, tokenizer.get_vocab_size(), fcel, np.float32)[0]))
        return ids

    assert tokenizer.decode(written({"choices": ["<fcel>1"]}), skip_special_tokens=False) == "<fcel>1"
    assert written({"regex": "(<fcel>|[a-c]){3}"}) == [fcel] * 3
