"""What form an answer must have: a JSON Schema, a regular expression or choices.

llguidance, the extra [json], follows the answer in a grammar and tells which tokens may come next. All others are ruled
out before one is sampled, so that what comes out is always the beginning of a valid answer; what ends before it is
complete is an error, or is completed by the shortest valid ending.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from smolvlm_edge.bundle.tokenizer import tokenizing
from smolvlm_edge.errors import EngineError, IncompleteError, RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from smolvlm_edge.constraints.endings import Endings

OnLimit = Literal["error", "complete"]
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON on one line as `json.dumps` writes it: a small model that may write white space anywhere writes nothing else."""

MOST_CHOICES, MOST_CHARACTERS, LARGEST_MULTIPLE = 10_000, 200_000, 100_000
"""What llguidance takes over in about a second; of `multipleOf`, it makes a state for every remainder."""
MOST_SAID = 300
"""Characters of what llguidance says, which repeats the whole grammar."""
UNSPEAKABLE = "\U000f0001"
"""Begins the names that hidden tokens have here; a character for private use, which nobody asks for."""


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
        reason = _reason(matcher).replace("NoExtensionBias", "nothing fulfils it")
        raise RequestError(f"the {name} cannot be used: {reason}")


def _reason(matcher: "LLMatcher") -> str:
    """What llguidance says, without where in the grammar, which the user did not write."""
    message = matcher.get_error().split("\n   1 | ")[0].split("\n<state>")[0]
    message = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: | \(in regex\)| in regex /.*/$", "", message)
    message = " ".join(message.split())
    message = message if len(message) <= MOST_SAID else f"{message[: MOST_SAID // 2]} ... {message[-MOST_SAID // 2 :]}"
    return message.replace("Enable 'coerce_one_of' option to approximate oneOf with anyOf", "write anyOf instead")


class Vocabulary:
    """A model's tokens in the form that llguidance works on; made once for a model."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Collection[int], hidden: Collection[int]
    ) -> None:
        """Take a tokenizer over.

        Args:
            tokenizer: The model's.
            vocab_size: Number of its logits; the tokenizer may have fewer tokens, or more.
            eos_token_ids: Tokens that end an answer.
            hidden: Tokens that are no text of an answer. What is spelled like one of them is spelled in others;
                special tokens that are text, such as DocTags, count as any other.

        Raises:
            EngineError: llguidance does not know this kind of tokenizer.
        """
        from llguidance import LLTokenizer  # noqa: PLC0415 - an extra

        self.eos_token_ids, self._vocab_size = frozenset(eos_token_ids), vocab_size
        try:
            with tokenizing():
                size, text = max(vocab_size, tokenizer.get_vocab_size()), _renamed(tokenizer.to_str(), hidden)
            self.tokens = LLTokenizer(text, n_vocab=size, eos_token=sorted(eos_token_ids))
        except (ValueError, TypeError, OverflowError) as error:
            raise EngineError(f"llguidance cannot work with this model's tokenizer: {error}") from error

    def fits(self, text: bytes, max_tokens: int) -> bool:
        """Whether a text can be made of so many tokens."""
        if self._has_all_bytes and len(text) <= max_tokens:
            return True
        tokens = self.spell(text)
        return tokens is not None and len(tokens) <= max_tokens

    def spell(self, text: bytes) -> list[int] | None:
        """The fewest tokens that make up a text; None if the vocabulary has not all of its bytes."""
        best: list[list[int] | None] = [[]]
        for end in range(1, len(text) + 1):
            starts = range(max(0, end - self._longest), end)
            ways = [
                [*before, token]
                for start in starts
                if (before := best[start]) is not None and (token := self._ids.get(text[start:end])) is not None
            ]
            best.append(min(ways, key=len, default=None))
        return best[-1]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        tokens = self.tokens
        ordinary = (id_ for id_ in range(self._vocab_size) if not tokens.is_special_token(id_))
        return {tokens.decode_bytes([id_]): id_ for id_ in ordinary}

    @cached_property
    def _has_all_bytes(self) -> bool:
        return all(bytes([byte]) in self._ids for byte in range(0xF5))  # UTF-8 has no others

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids))


def _renamed(tokenizer: str, hidden: Collection[int]) -> str:
    """tokenizer.json in which hidden tokens have other names, and those that are text stand among the ordinary ones.

    Where a text is certain, llguidance takes the tokens that the tokenizer makes of it: of `<image>`, the one for
    pictures. And whatever is added and spelled `<like this>` it takes for no text, special or not: a DocTag, say.
    """
    values = json.loads(tokenizer)
    vocabulary, added, names = values["model"].get("vocab"), values["added_tokens"], {}
    for token in added:
        token["special"] = token["id"] in hidden
        if token["special"]:
            names[token["content"]] = token["content"] = f"{UNSPEAKABLE}{token['id']}"
    if isinstance(vocabulary, dict):
        ids = {token["content"]: token["id"] for token in added}  # else it would count those that are left anew
        values["model"]["vocab"] = {names.get(name, name): id_ for name, id_ in vocabulary.items()} | ids
        as_its_bytes = re.compile("[!-~]+")  # a name that means the same there
        values["added_tokens"] = [
            each for each in added if each["special"] or not as_its_bytes.fullmatch(each["content"])
        ]
    values["post_processor"] = None  # it may name them, and adds nothing to an answer
    return json.dumps(values)


class Guide:
    """Stands before a sampler, and lets it choose among the tokens with which the answer goes on validly."""

    def __init__(
        self,
        constraint: Constraint,
        prefix: str,
        vocabulary: Vocabulary,
        sampler: Callable[[npt.NDArray[np.float32]], int],
        max_tokens: int,
        on_limit: OnLimit,
        measure: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Begin an answer.

        Args:
            constraint: Its form.
            prefix: What it begins with before its text; see `ModelInput.answer_prefix`.
            vocabulary: The model's.
            sampler: Chooses among the tokens that are left.
            max_tokens: Longest answer.
            on_limit: With `complete`, a token is not taken if the answer could not be completed in time after it:
                from there the shortest ending takes the model's place.
            measure: What is done inside counts as the cost of the constraint.

        Raises:
            RequestError: Not even the shortest answer has room, or llguidance gives up on the constraint.
        """
        from llguidance import LLMatcher  # noqa: PLC0415 - an extra

        from smolvlm_edge.constraints.endings import Endings, limits  # noqa: PLC0415

        self.ended = False
        """Whether the answer is complete, and nothing can come after it."""
        self.cut = False
        """Whether it was completed because of the limit."""
        self._vocabulary, self._sampler, self._measure = vocabulary, sampler, measure
        self._left, self._tail = max_tokens, list[int]()
        with measure():
            grammar = constraint.grammar(prefix)
            self._matcher = LLMatcher(vocabulary.tokens, grammar, log_level=0, limits=limits())
            self._endings = Endings(grammar) if on_limit == "complete" else None
            if self._endings:
                self._check_room(self._endings)

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token id.

        Raises:
            RequestError: llguidance gives up on the constraint.
        """
        self._left -= 1
        if not self._tail:
            with self._measure():
                allowed = self._allowed(len(logits))
            token = self._sampler(np.where(allowed, logits, np.float32(-np.inf)))
            with self._measure():
                if self._follow(token):
                    return token
                self._tail = self._shortest_tail()
        token = self._tail.pop(0)
        self.cut = not self._tail
        return token

    def _allowed(self, vocab_size: int) -> npt.NDArray[np.bool_]:
        """Which tokens may come next [vocab_size]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            raise RequestError(f"llguidance found no way on with an answer of this form: {_reason(self._matcher)}")
        return allowed

    def _follow(self, token: int) -> bool:
        """Whether the answer goes on with this token; it does not if there would be no room for an ending."""
        vocabulary = self._vocabulary
        if token in vocabulary.eos_token_ids:
            return True
        if self._endings and not self._endings.follow(vocabulary.tokens.decode_bytes([token]), self._has_room):
            return False
        self._matcher.consume_token(token)
        self.ended = self._matcher.is_stopped()
        return True

    def _shortest_tail(self) -> list[int]:
        """Tokens that complete the answer; an end token if it is complete."""
        assert self._endings is not None
        self._left += 1  # the token that was not taken
        known = self._endings.ending
        self._endings.shorten()
        ending = self._endings.ending if self._has_room(self._endings.ending) else known
        return self._vocabulary.spell(ending or b"") or [min(self._vocabulary.eos_token_ids)]

    def _has_room(self, ending: bytes | None) -> bool:
        return ending is not None and self._vocabulary.fits(ending, self._left)

    def _check_room(self, endings: "Endings") -> None:
        if not self._has_room(endings.ending):
            endings.shorten(self._has_room)
        if endings.ending is None:
            raise RequestError(
                "no end was found for an answer of this form: leave on_limit='complete' (--complete) out"
            )
        if not self._has_room(endings.ending):
            tokens = len(self._vocabulary.spell(endings.ending) or ())
            raise RequestError(
                f"an answer of at most {self._left} tokens has no room for this form: the shortest takes {tokens}"
            )
