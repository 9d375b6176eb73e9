"""What form an answer must have: a JSON Schema, a regular expression or choices.

llguidance, the extra [json], follows the answer in a grammar and tells which tokens may come next. All others are ruled
out before one is sampled, so that what comes out is always the beginning of a valid answer; what ends before it is
complete is an error, or is completed by the shortest valid ending.

- here: what was asked for -> a rule of the grammar
- `vocabulary`: the model's tokens, as llguidance knows them
- `guide`: one answer, token by token
- `endings`: the shortest valid ending of an answer
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from smolvlm_edge.errors import IncompleteError, RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher

OnLimit = Literal["error", "complete"]
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON on one line as `json.dumps` writes it: a small model that may write white space anywhere writes nothing else."""

MOST_CHOICES, MOST_CHARACTERS, LARGEST_MULTIPLE = 10_000, 200_000, 100_000
"""What llguidance takes over in about a second; of `multipleOf`, it makes a state for every remainder."""
MOST_SAID = 300
"""Characters of what llguidance says, which repeats the whole grammar."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form that an answer must have."""

    rule: str
    """The right side of the Lark rule `answer`."""

    def grammar(self, prefix: str = "") -> str:
        """In llguidance's dialect of Lark; an answer begins with the prefix, which is not part of its text."""
        return f"start: {json.dumps(prefix)} answer\nanswer: {self.rule}" if prefix else f"start: {self.rule}"

    def check(self, text: str, max_tokens: int) -> None:
        """Refuse a whole answer that is not complete.

        Raises:
            IncompleteError: The token limit or a stop text cut it off.
        """
        from smolvlm_edge.constraints.endings import byte_matcher, completes  # noqa: PLC0415 - an extra

        if not completes(byte_matcher(self.grammar()), text.encode()):
            raise IncompleteError(
                f"the answer was cut off before it was complete, by the limit of {max_tokens} tokens or a stop text: "
                "raise max_tokens, or let on_limit='complete' (--complete) bring it to an end"
            )


def read_constraint(options: Mapping[str, Any]) -> Constraint | None:
    """The constraint among the options of an answer, if there is one.

    Raises:
        RequestError: It makes no sense or asks for what llguidance cannot keep to, there is more than one, or the
            extra is not installed.
    """
    if (on_limit := options.get("on_limit", "error")) not in get_args(OnLimit):
        raise RequestError(f"on_limit must be one of {', '.join(get_args(OnLimit))}, not {on_limit!r}")
    given = {name: value for name in RULES if (value := options.get(name)) is not None}
    if not given:
        return None
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} exclude each other: an answer has one form")
    if find_spec("llguidance") is None:
        raise RequestError("answers of a given form need llguidance: pip install 'smol-edge[json]'")
    ((name, value),) = given.items()
    constraint = Constraint(RULES[name](value))
    _check_grammar(name, constraint)
    return constraint


def _schema_rule(schema: Any) -> str:
    if hasattr(schema, "model_json_schema"):  # a Pydantic model
        schema = schema.model_json_schema()
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        if not isinstance(schema, Mapping):
            raise RequestError(f"a JSON Schema is an object, not {type(schema).__name__}")
        text = json.dumps({**schema, "x-guidance": LAYOUT}, allow_nan=False)
        _check_length("the schema", text)
        _check_multiples(schema)
        return f"%json {text}"
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"the schema is no JSON: {error}") from error


def _regex_rule(regex: Any) -> str:
    from llguidance import regex_to_lark  # noqa: PLC0415 - an extra

    if not isinstance(regex, str) or not regex:
        raise RequestError("regex must be a text that is not empty")
    _check_length("the regex", regex)
    try:
        return f"/{regex_to_lark(regex)}/"
    except UnicodeEncodeError:  # half of a surrogate pair
        raise RequestError("regex is no valid Unicode text") from None


def _choices_rule(choices: Any) -> str:
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) and choice for choice in choices):
        raise RequestError("choices must be a list of texts that are not empty")
    if not choices:
        raise RequestError("choices are empty: an answer needs at least one")
    if len(choices) > MOST_CHOICES:
        raise RequestError(f"there are {len(choices):,} choices, and at most {MOST_CHOICES:,} can be kept to")
    rule = " | ".join(map(json.dumps, choices))
    _check_length("the list of choices", rule)
    return rule


def _check_length(what: str, text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise RequestError(f"{what} has {len(text):,} characters, and at most {MOST_CHARACTERS:,} can be kept to")


def _check_multiples(schema: Any) -> None:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
            multiple = value.get("multipleOf")
            if (
                type(multiple) in (int, float)
                and int(f"{Decimal(str(multiple)):f}".replace(".", "")) > LARGEST_MULTIPLE
            ):
                raise RequestError(f"multipleOf {str(multiple)[:20]} cannot be kept to: it has too many digits")
        elif isinstance(value, list | tuple):
            waiting += value


RULES: dict[str, Callable[[Any], str]] = {"schema": _schema_rule, "regex": _regex_rule, "choices": _choices_rule}


@lru_cache(maxsize=64)
def _check_grammar(name: str, constraint: Constraint) -> None:
    from smolvlm_edge.constraints.endings import byte_matcher  # noqa: PLC0415 - an extra

    matcher = byte_matcher(constraint.grammar())
    matcher.compute_bitmask()
    if matcher.is_error():
        reason = reason_of(matcher).replace("NoExtensionBias", "nothing fulfils it")
        raise RequestError(f"the {name} cannot be used: {reason}")


def reason_of(matcher: "LLMatcher") -> str:
    """What llguidance says, without where in the grammar, which the user did not write."""
    message = matcher.get_error().split("\n   1 | ")[0].split("\n<state>")[0]
    message = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: | \(in regex\)| in regex /.*/$", "", message)
    message = " ".join(message.split())
    message = message if len(message) <= MOST_SAID else f"{message[: MOST_SAID // 2]} ... {message[-MOST_SAID // 2 :]}"
    return message.replace("Enable 'coerce_one_of' option to approximate oneOf with anyOf", "write anyOf instead")
