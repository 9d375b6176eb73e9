"""Schemas, regular expressions and choices, and the shortest ending of each."""

import json
from pathlib import Path

from smolvlm_edge.constraints import read_constraint
from smolvlm_edge.constraints.endings import Endings
from smolvlm_edge.errors import RequestError
from tests.fuzz.parsers import as_json


def seeds(_: Path) -> list[bytes]:
    item = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 3}}, "required": ["a"]}
    whole = {"type": "object", "properties": {"x": {"enum": ["a", 1]}, "y": {"type": "array", "items": item}}}
    return as_json(
        {"schema": {**whole, "additionalProperties": False}},
        {"schema": {"anyOf": [{"type": "string", "pattern": "^a{2,9}$"}, {"$ref": "#/$defs/x"}], "$defs": {"x": item}}},
        {"schema": {"type": "string", "minLength": 3, "maxLength": 90, "format": "date"}},
        {"regex": "([a-z]{3} )+end|(?i)x?\\d{1,9}[^a]*"},
        {"choices": ["yes", "no", "an <image> tag"]},
    )


def parse(data: bytes, _: Path) -> None:
    try:
        options = json.loads(data)
    except (ValueError, RecursionError):
        options = {"regex": data.decode(errors="surrogateescape")}
    if not isinstance(options, dict):
        raise RequestError("no options")
    constraint = read_constraint(options)
    if constraint:
        Endings(constraint.grammar(" ")).shorten()
