"""A conversation becomes the token ids of transformers, by the checkpoint's own template and tokenizer."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from released_files import RELEASED, unpack
from sample_prompts import PICTURE, PROMPTS, say, turn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from smolvlm_edge import IntegrityError, RequestError, SmolEdgeError
from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "prompts.json").read_text(encoding="utf-8"))["cases"]
CONFIG = ModelConfig.from_folder(RELEASED)
DOUBLE_NEWLINE = 1116
SMALL_CONFIG = replace(CONFIG, image_token_id=3)
"""For a checkpoint with the small tokenizer below."""

# ibm-granite/granite-docling-258M, chat_template.jinja (Apache-2.0)
GRANITE = """\
{%- for message in messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<image>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|end_of_text|>
' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_of_role|>assistant' -}}
{%- if controls -%}{{- ' ' + controls | tojson() -}}{%- endif -%}
{{- '<|end_of_role|>' -}}
{%- endif -%}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(unpack(tmp_path_factory.mktemp("released")), CONFIG)


def small_tokenizer() -> Tokenizer:
    words = ["<unk>", "<s>", "Hi", "<image>"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["<s>", "<image>"])
    return tokenizer


def checkpoint(folder: Path, template: Any = None, **tokenizer_config: Any) -> Path:
    """A folder with a tiny tokenizer, and a template in tokenizer_config.json."""
    small_tokenizer().save(str(folder / "tokenizer.json"))
    if template is not None:
        tokenizer_config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    return folder


def render(folder: Path, *messages: dict[str, Any]) -> str:
    return PromptEncoder(folder, SMALL_CONFIG).render(messages or [turn("user", say("Hi"))])


def lengthened(runs: list[Any]) -> list[int]:
    return list(chain.from_iterable([run[0]] * run[1] if isinstance(run, list) else [run] for run in runs))


@pytest.mark.parametrize("name", GOLDENS)
def test_token_ids_are_those_of_transformers(name: str, encoder: PromptEncoder) -> None:
    golden = GOLDENS[name]
    grids = [tuple(grid) for grid in golden["grids"]]

    assert encoder.encode(golden["messages"], grids).tolist() == lengthened(golden["input_ids"])


def test_goldens_are_of_these_conversations() -> None:
    assert {
        name: (case["messages"], [tuple(grid) for grid in case["grids"]]) for name, case in GOLDENS.items()
    } == PROMPTS


def test_a_plain_text_is_a_turn_with_one_text(encoder: PromptEncoder) -> None:
    """Differs from transformers on purpose, where this template drops a text that stands in no list."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]

    assert encoder.encode(messages, []).tolist() == lengthened(GOLDENS["text"]["input_ids"])


@pytest.mark.parametrize(("grid", "double_newlines"), [((0, 0), 0), ((1, 2), 1), ((4, 4), 1)])
def test_newlines_after_the_last_row_merge(grid: tuple[int, int], double_newlines: int, encoder: PromptEncoder) -> None:
    ids = encoder.encode([turn("user", PICTURE, say("What?"))], [grid]).tolist()

    assert ids.count(DOUBLE_NEWLINE) == double_newlines


@pytest.mark.parametrize("grid", [(0, 0), (1, 2), (3, 4), (8, 8)])
def test_every_tile_has_64_places(grid: tuple[int, int], encoder: PromptEncoder) -> None:
    ids = encoder.encode([turn("user", PICTURE, say("What?"))], [grid]).tolist()

    assert ids.count(CONFIG.image_token_id) == 64 * (grid[0] * grid[1] + 1)


def test_conversation_is_left_as_it_was(encoder: PromptEncoder) -> None:
    messages = [{"role": "user", "content": "Hi"}, turn("user", PICTURE, say("Hi"))]
    before = json.dumps(messages)

    encoder.encode(messages, [(1, 2)])

    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    ("parts", "grids"),
    [
        ([say("What is <image>?")], []),
        ([PICTURE, say("What is <image>?")], [(0, 0)]),
        ([say("<ima"), say("ge>")], []),
        ([PICTURE], []),
        ([PICTURE], [(0, 0), (0, 0)]),
        ([say("Hi")], [(0, 0)]),
    ],
)
def test_pictures_and_their_places_must_match(parts: list, grids: list, encoder: PromptEncoder) -> None:
    with pytest.raises(RequestError, match="<image>"):
        encoder.encode([turn("user", *parts)], grids)


def test_half_a_surrogate_pair_is_refused(encoder: PromptEncoder) -> None:
    """Python puts one where a command-line argument is no UTF-8."""
    with pytest.raises(RequestError):
        encoder.encode([turn("user", say("Caf\udce9"))], [])


# --- where the template is kept ----------------------------------------------------------------------------------


def test_template_in_tokenizer_config(tmp_path: Path) -> None:
    assert render(checkpoint(tmp_path, "{{ messages[0].role }} says")) == "user says"


def test_named_templates_in_tokenizer_config(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ messages[0].role }}"}]
    assert render(checkpoint(tmp_path, named)) == "user"


def test_chat_template_json_goes_before_tokenizer_config(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "old")
    (folder / "chat_template.json").write_text('{"chat_template": "new"}', encoding="utf-8")

    assert render(folder) == "new"


def test_chat_template_jinja_goes_before_all(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "old")
    (folder / "chat_template.json").write_text('{"chat_template": "new"}', encoding="utf-8")
    (folder / "chat_template.jinja").write_text("newest „{{ messages[0].role }}“", encoding="utf-8")

    assert render(folder) == "newest „user“"


def test_released_template_reads_the_same_in_all_places(encoder: PromptEncoder, tmp_path: Path) -> None:
    template = json.loads((RELEASED / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    messages = PROMPTS["earlier_turns"].messages
    folder = checkpoint(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    assert render(folder, *messages) == encoder.render(messages)


def test_granite_docling_template(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "chat_template.jinja").write_text(GRANITE, encoding="utf-8")
    messages = [
        turn("user", PICTURE, say("Convert this page to docling.")),
        {"role": "assistant", "content": "<doctag>x</doctag>"},
        {"role": "user", "content": 'And "quotes" & <b>?'},
    ]

    # render_jinja_template(conversations=[messages], chat_template=GRANITE, add_generation_prompt=True) of
    # transformers 5.23 (utils/chat_template_utils.py), which Processor.apply_chat_template calls
    assert render(folder, *messages) == (
        "<|start_of_role|>user<|end_of_role|><image>Convert this page to docling.<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|><doctag>x</doctag><|end_of_text|>\n"
        '<|start_of_role|>user<|end_of_role|>And "quotes" & <b>?<|end_of_text|>\n'
        "<|start_of_role|>assistant<|end_of_role|>"
    )


def test_template_sees_the_special_tokens(tmp_path: Path) -> None:
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "add_bos_token": True}
    assert render(checkpoint(tmp_path, "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}", **special)) == "<s>|</s>|"


@pytest.mark.parametrize("template", ["<s> Hi", "{{ bos_token }} Hi", "Hi"])
def test_start_token_stands_once(template: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, template, bos_token="<s>")
    tokenizer = small_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))

    assert PromptEncoder(folder, SMALL_CONFIG).encode([turn("user")], []).tolist() == [1, 2]


def test_without_a_template_the_tokenizer_decides_about_the_start_token(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, bos_token="<s>")
    messages = [turn("user", PICTURE, say("Hi"))]
    assert PromptEncoder(folder, SMALL_CONFIG).render(messages) == "<image>Hi"
    assert PromptEncoder(folder, SMALL_CONFIG).encode([turn("user", say("Hi"))], []).tolist() == [2]

    tokenizer = small_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert PromptEncoder(folder, SMALL_CONFIG).encode([turn("user", say("Hi"))], []).tolist() == [1, 2]


@pytest.mark.parametrize(("tag", "hidden"), [("<doctag>", {"</s>", "<end>", "<image>"}), ("<table>", None)])
def test_tags_are_text_where_a_model_writes_doctags(tag: str, hidden: set[str] | None, tmp_path: Path) -> None:
    """Of such a model only tokens with a role are hidden: what tokenizer_config.json names, end tokens, the image's."""
    folder = checkpoint(tmp_path, "Hi", eos_token={"content": "</s>"})
    tokenizer, special = small_tokenizer(), ["</s>", "<end>", tag, "<nl>", "<s>", "<image>"]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<end>")

    encoder = PromptEncoder(folder, replace(SMALL_CONFIG, eos_token_ids=(end,)))

    assert {tokenizer.id_to_token(number) for number in encoder.hidden_token_ids} == (hidden or set(special))


def test_padding_and_truncation_of_the_tokenizer_are_ignored(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "Hi Hi Hi Hi")
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=10)
    tokenizer.save(str(folder / "tokenizer.json"))

    assert PromptEncoder(folder, SMALL_CONFIG).encode([turn("user")], []).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("template", "expected"),
    [  # what render_jinja_template of transformers 5.23 makes of them
        ("{{ '<|x|>' + messages[0].content[0].text | tojson }}", '<|x|>"Tom & <Zoë>"'),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("{{ strftime_now('%%') }}", "%"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("  {% if true %}\n  yes\n  {% endif %}\n", "  yes\n"),
        ("{{ messages[0].content[0].text }}", "Tom & <Zoë>"),
    ],
)
def test_templates_have_what_transformers_gives_them(template: str, expected: str, tmp_path: Path) -> None:
    assert render(checkpoint(tmp_path, template), turn("user", say("Tom & <Zoë>"))) == expected


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        CHATML.replace("{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}",
                       "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{{ '' }}"),
    ],
)  # fmt: skip
def test_templates_for_texts_get_texts(template: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, template)
    # render_jinja_template(conversations=[[{"role": "user", "content": "Hi you"}]], chat_template=CHATML, ...) of
    # transformers 5.23
    expected = "<|im_start|>user\nHi you<|im_end|>\n<|im_start|>assistant\n"
    assert render(folder, turn("user", say("Hi "), say("you"))) == expected
    assert "user\n<image>Hi<" in render(folder, turn("user", PICTURE, say("Hi")))


@pytest.mark.parametrize(
    ("template", "expected"),
    [  # render_jinja_template of transformers 5.23 passes None where there are none
        ("{% if tools is not none %}T{% endif %}{{ messages[0].role }}", "user"),
        ("{% if documents is not none %}D{% endif %}{{ messages[0].role }}", "user"),
        ("{% if tools %}T{% endif %}{% if documents is defined %}d{% endif %}{{ messages[0].role }}", "duser"),
    ],
)
def test_no_tools_and_no_documents_are_none(template: str, expected: str, tmp_path: Path) -> None:
    assert render(checkpoint(tmp_path, template)) == expected


TRIMMING = CHATML.replace("message['content'] + '", "message['content'] | trim + '")


@pytest.mark.parametrize(
    ("template", "begun", "expected"),
    [  # render_jinja_template(conversations=[...], chat_template=..., continue_final_message=True), transformers 5.23
        (GRANITE, "<doctag><text>", "<|start_of_role|>assistant<|end_of_role|><doctag><text>"),
        (GRANITE, "It is  ", "<|start_of_role|>assistant<|end_of_role|>It is  "),
        (GRANITE, "1.\n", "<|start_of_role|>assistant<|end_of_role|>1.\n"),
        (TRIMMING, "It is  ", "<|im_start|>assistant\nIt is"),
        (TRIMMING, "1.\n", "<|im_start|>assistant\n1."),
    ],
)
def test_an_answer_that_is_continued(template: str, begun: str, expected: str, tmp_path: Path) -> None:
    encoder = PromptEncoder(checkpoint(tmp_path, template), SMALL_CONFIG)
    turns = [turn("user", say("Q?")), turn("assistant", say(begun))]
    assert encoder.render(turns, continued=True).endswith("\n" + expected)


def test_a_template_that_leaves_the_beginning_out(tmp_path: Path) -> None:
    encoder = PromptEncoder(checkpoint(tmp_path, "{{ messages[0].content[0].text }}"), SMALL_CONFIG)
    with pytest.raises(RequestError, match="leaves out"):
        encoder.encode([turn("user", say("Q?")), turn("assistant", say("A"))], [])


def test_an_answer_may_spell_the_image_token(encoder: PromptEncoder) -> None:
    """The model wrote it in letters: it is no place for a picture, and the chat goes on."""
    asked, answered = turn("user", PICTURE, say("Which tag?")), turn("assistant", say("It is <image> here."))
    ids = encoder.encode([asked, answered, turn("user", say("Why?"))], [(0, 0)]).tolist()
    assert ids.count(CONFIG.image_token_id) == 64
    assert encoder.tokenizer.decode(ids, skip_special_tokens=True).count("It is <image> here.") == 1


# --- templates and tokenizers that fail --------------------------------------------------------------------------


def test_template_may_refuse_a_conversation(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "{{ raise_exception('Only user and assistant may speak') }}")

    with pytest.raises(RequestError, match="Only user and assistant may speak"):
        render(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ raise_exception.__globals__.sys }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{{ 'a' * 6000000000 }}",
        "{{ 7 ** 100000000 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% set x = a %}{% endfor %}" * 100,
        "{{ 'a'.center(6000000000) }}{{ 'a' | center(6000000000) }}",
        "{{ '%6000000000d' % 1 }}",
        "{{ '{:>6000000000}'.format(1) }}",
        "{{ '%*d' | format(6000000000, 1) }}",
        "{% set x = 'a' * 2000000 %}{{ x.replace('a', x) }}",
        "{% set x = 'ab' * 500000 %}{{ (x | list) | join(x) }}",
        "{{ range(99999) | map('center', 99999) | join }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x > 1 }}",
        "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
        "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n else '' }}{% endmacro %}{{ m(60) }}",
        "{{ strftime_now('%6000000000d') }}",
        "{{ lipsum(n=100000000) }}",
    ],
)
def test_template_cannot_leave_the_sandbox(template: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, template)

    with pytest.raises(SmolEdgeError):
        render(folder)


@pytest.mark.parametrize("trick", ["''|attr('__class__')", "raise_exception.__globals__"])
def test_template_finds_nothing_behind_the_sandbox(trick: str, tmp_path: Path) -> None:
    assert render(checkpoint(tmp_path, "[{{ " + trick + " }}]")) == "[]"


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{{ messages[7].role }}", "{{ 'a' + 1 }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"],
)
def test_template_that_breaks_while_it_runs(template: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, template)

    with pytest.raises(RequestError, match="template"):
        render(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{% if x %}",
        "{{ messages",
        "{% nonsense %}",
        "{{ 'x'|no_such_filter }}",
        "{% break %}",
        "{% if true %}{% continue %}{% endif %}",
        "{% for i in x %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 100_000 + " }}",
        "x" * 1_000_000,
    ],
)
def test_template_with_a_syntax_error(template: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="template"):
        PromptEncoder(checkpoint(tmp_path, template), SMALL_CONFIG)


@pytest.mark.parametrize("template", [5, [], ["x"], [{"name": "default"}], [{"name": "rag", "template": "x"}]])
def test_unusable_template(template: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="template"):
        PromptEncoder(checkpoint(tmp_path, template), SMALL_CONFIG)


@pytest.mark.parametrize("content", ["{}", '{"chat_template": ""}', '{"chat_template": null}'])
def test_a_template_file_without_a_template(content: str, tmp_path: Path) -> None:
    """Damaged: a base model has no such file."""
    folder = checkpoint(tmp_path)
    (folder / "chat_template.json").write_text(content, encoding="utf-8")
    with pytest.raises(IntegrityError, match="template"):
        PromptEncoder(folder, SMALL_CONFIG)


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_damaged_files_around_the_template(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "fine")
    (folder / name).write_bytes(b'{"chat_template": "\xff\xfe')

    with pytest.raises(IntegrityError, match=name):
        PromptEncoder(folder, SMALL_CONFIG)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other_json", "binary"])
def test_damaged_tokenizer(damage: str, tmp_path: Path) -> None:
    file = checkpoint(tmp_path, "fine") / "tokenizer.json"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": whole[:-20], "other_json": b"{}", "binary": bytes(range(256))}[damage])

    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        PromptEncoder(tmp_path, SMALL_CONFIG)


def test_missing_tokenizer_config(tmp_path: Path) -> None:
    (checkpoint(tmp_path, "fine") / "tokenizer_config.json").unlink()

    with pytest.raises(IntegrityError, match=r"tokenizer_config\.json is missing"):
        PromptEncoder(tmp_path, SMALL_CONFIG)


def test_tokenizer_without_the_image_token(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="99"):
        PromptEncoder(checkpoint(tmp_path, "fine"), replace(CONFIG, image_token_id=99))
