"""JSON Schemas made by Hypothesis, with what llguidance keeps to; and the judge of answers."""

import json
import re
from copy import deepcopy
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

NAMES = st.sampled_from(["a", "name", "größe", 'qu"ote', "x y", "日本", "count", "back\\slash", ""])
SMALL = st.integers(0, 3)
FORMATS = deepcopy(Draft202012Validator.FORMAT_CHECKER)


def judge(text: str, schema: dict[str, Any]) -> None:
    """Fails unless the text is JSON, no key comes twice, and the schema holds; numbers are taken exactly."""
    value = json.loads(text, parse_float=_number, object_pairs_hook=_object, parse_constant=_refuse)
    Draft202012Validator(schema, format_checker=FORMATS).validate(value)


@FORMATS.checks("date", raises=ValueError)
def _is_date(value: object) -> bool:
    """RFC 3339, appendix A, has a year 0, a leap year as 2000 was; Python's dates begin with year 1."""
    if not isinstance(value, str):
        return True
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value) and date.fromisoformat(re.sub("^0000", "2000", value)))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key came twice"
    return dict(pairs)


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of many digits, which JSON allows
        return float(text)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["any", "length", "pattern", "format"]))
    if kind == "length":
        shortest = draw(SMALL)
        return {"type": "string", "minLength": shortest, "maxLength": shortest + draw(st.integers(0, 8))}
    if kind == "pattern":
        patterns = ["^[a-z]{2,5}$", "^(ja|nein|vielleicht)$", r"^\d{3}-[A-F]+$", "^é?[^x]*x$", "b+c", '^"|\\\\$']
        return {"type": "string", "pattern": draw(st.sampled_from(patterns))}
    if kind == "format":
        return {"type": "string", "format": draw(st.sampled_from(["date", "date-time", "uuid", "ipv4", "email"]))}
    return {"type": "string"}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    schema: dict[str, Any] = {"type": kind}
    least = draw(st.none() | st.integers(-2000, 2000))
    if least is not None:
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = least
        if draw(st.booleans()):
            schema["maximum"] = least + draw(st.integers(20, 3000))
    if kind == "integer" and draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 7))
    return schema


LEAVES = st.one_of(
    strings(),
    numbers(),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}]),
    st.lists(
        st.text(max_size=8) | st.integers(-99, 99) | st.none() | st.booleans(), min_size=1, max_size=4, unique_by=repr
    ).map(lambda values: {"enum": values}),
    st.text(max_size=6).map(lambda value: {"const": value}),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    schema = {"type": "object", "properties": properties, "required": required}
    return schema if draw(st.booleans()) else schema | {"additionalProperties": False}


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    shortest = draw(SMALL)
    schema: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": shortest}
    if draw(st.booleans()):
        schema["maxItems"] = shortest + draw(SMALL)
    if draw(st.booleans()):
        schema["prefixItems"] = [draw(inner)]
    return schema


def _unions(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})


SCHEMAS = st.recursive(LEAVES, lambda inner: objects(inner) | arrays(inner) | _unions(inner), max_leaves=8)


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """One with definitions, now and then."""
    schema = draw(SCHEMAS)
    if draw(st.integers(0, 3)) > 0:
        return schema
    tree = {"type": "object", "properties": {"value": schema, "next": {"$ref": "#/$defs/tree"}}, "required": ["value"]}
    return {"$defs": {"tree": tree}, "type": "array", "items": {"$ref": "#/$defs/tree"}, "minItems": 1}
