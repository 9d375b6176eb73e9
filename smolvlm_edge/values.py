"""What the value of an option may be. Numbers may be numpy's; true and false are no numbers."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from smolvlm_edge.errors import RequestError

MOST = 1 << 20
"""No size, count or token id of a model of this kind comes near it."""
MOST_IDS = 100_000
"""Token ids in one option; no vocabulary of the family has many more."""


def check(rules: Mapping[str, object]) -> None:
    """Raise RequestError for the first rule that does not hold."""
    for rule, holds in rules.items():
        if not holds:
            raise RequestError(rule)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise RequestError if a value is none of a few texts."""
    if not isinstance(value, str) or value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}, not {str(value)[:40]!r}")


def plain(value: Any) -> Any:
    """A scalar of numpy's, torch's or the like as Python's own; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)) else value


def is_whole(value: Any, least: int = 0, most: int | None = MOST) -> bool:
    """Whether it is a whole number, no less and no more."""
    return _is_number(value, Integral) and bool(value >= least and (most is None or value <= most))


def is_real(value: Any, least: float, most: float) -> bool:
    """Whether it is a number, no less and no more; NaN is none."""
    return _is_number(value, Real) and bool(least <= value <= most)


def is_text_or_texts(value: Any) -> bool:
    """Whether it is one text, or a list of them."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value))


def are_ids(value: Any) -> bool:
    """Whether they are token ids."""
    return isinstance(value, list | tuple) and len(value) <= MOST_IDS and all(map(is_whole, value))


def are_runs(value: Any) -> bool:
    """Whether they are lists of one token id or more."""
    return isinstance(value, list | tuple) and len(value) <= MOST_IDS and all(run and are_ids(run) for run in value)


def is_bias(value: Any) -> bool:
    """Whether it maps token ids to numbers from -100 to 100."""
    return (
        isinstance(value, Mapping)
        and len(value) <= MOST_IDS
        and all(is_whole(token) and is_real(bias, -100, 100) for token, bias in value.items())
    )


def are_biases(value: Any) -> bool:
    """Whether they are pairs of a run of token ids and a number."""
    return (
        isinstance(value, list | tuple)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)
        and are_runs([run for run, _ in value])
        and all(is_real(bias, -MOST, MOST) for _, bias in value)
    )


def is_decay(value: Any) -> bool:
    """Whether it is a number of tokens and a factor above 0."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    start, factor = value
    return is_whole(start) and is_real(factor, 0, MOST) and factor > 0


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
