"""What the checks of both formats share."""

from dataclasses import dataclass
from pathlib import Path

MAX_GRAPH_BYTES = 64 << 20
"""Operators of a graph without its weights; the largest that is known takes 3 MB."""
MAX_NODES = 200_000
MAX_RANK = 8
LARGEST_SIZE = 1 << 31
"""Of one dimension."""
LARGEST_MADE = 1 << 24
"""Elements that a constant may ask for where an operator makes values out of nothing."""
LONGEST_SHOWN = 60


class Refusal(Exception):  # noqa: N818 - not an error of the program, and never seen outside of the checks
    """What a graph holds that the exporter does not write, as a noun."""


@dataclass(frozen=True, slots=True)
class Arity:
    """How many inputs and outputs an operator has."""

    inputs: range
    outputs: range
    attributes: frozenset[str]

    def check(self, operator: str, inputs: int, outputs: int, attributes: set[str]) -> None:
        """Refuse any other number, and attributes that are not known."""
        if inputs not in self.inputs or outputs not in self.outputs:
            raise Refusal(f"it holds {shown(operator)} with {inputs} inputs and {outputs} outputs")
        if unknown := attributes - self.attributes:
            raise Refusal(f"it holds {shown(operator)} with an attribute {shown(min(unknown))}")


def arity(inputs: int | tuple[int, int], outputs: int | tuple[int, int] = 1, attributes: str = "") -> Arity:
    """Numbers, or from and to; names of attributes with spaces between."""
    return Arity(_range(inputs), _range(outputs), frozenset(attributes.split()))


def _range(count: int | tuple[int, int]) -> range:
    first, last = count if isinstance(count, tuple) else (count, count)
    return range(first, last + 1)


def read_graph(path: Path) -> bytes:
    """The file of a graph's operators."""
    with path.open("rb") as file:
        data = file.read(MAX_GRAPH_BYTES + 1)
    if len(data) > MAX_GRAPH_BYTES:
        raise Refusal(f"it holds more than {MAX_GRAPH_BYTES >> 20} MB of operators")
    return data


def elements(sizes: list[int]) -> int:
    """How many there are in a tensor of a known shape."""
    if len(sizes) > MAX_RANK or not all(0 <= size <= LARGEST_SIZE for size in sizes):
        raise Refusal(f"it holds a tensor of the shape {shown(str(sizes))}")
    count = 1
    for size in sizes:
        count *= size
    return count


def shown(text: str) -> str:
    """A name from a file, fit for a terminal."""
    plain = text.encode("ascii", "replace").decode()
    plain = "".join(letter if letter.isprintable() else "?" for letter in plain)
    return plain if len(plain) <= LONGEST_SHOWN else f"{plain[:LONGEST_SHOWN]}..."
