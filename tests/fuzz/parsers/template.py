"""chat_template.jinja."""

from pathlib import Path

from smolvlm_edge.conversation.template import ChatTemplate
from tests.fuzz.parsers import TESTS, tiny

LOOPS = b"{% set ns = namespace(x='a') %}{% for a in range(99999) %}{% set ns.x = ns.x ~ a * 7 %}{% endfor %}{{ ns.x }}"
FILTERS = b"{{ messages | tojson | replace('a', 'b') | center(80) | indent(4) }}{% macro m(x) %}{{ x }}{% endmacro %}"
CALLS = b"{{ m('%s' % 'a' * 9) }}{{ 'x'.join(['a', 'b']) }}{{ '{:>9}'.format(1) }}{{ 2 ** 9 }}{{ strftime_now('%d') }}"
TURNS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "This. "}]},
]


def seeds(_: Path) -> list[bytes]:
    granite = (TESTS / "released" / "granite-docling-258m" / "chat_template.jinja").read_bytes()
    return [*tiny("chat_template.json"), granite, granite, LOOPS, FILTERS + CALLS]


def parse(data: bytes, _: Path) -> None:
    template = ChatTemplate(data.decode(errors="surrogateescape"), {"bos_token": "<s>"}, "<image>")
    template.render(TURNS)  # type: ignore[arg-type]
    template.render(TURNS, continued=True)  # type: ignore[arg-type]
