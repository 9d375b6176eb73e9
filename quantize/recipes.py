"""Which weight gets which number format.

A recipe is a value: an ordered list of (pattern, format), where the first pattern that matches a tensor's
name decides. Only matrices ask; norms, biases, the patch convolution and position tables stay float32.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, Self, get_args

Kind = Literal["float32", "blocks", "rows", "static"]
Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value that a matrix is multiplied with, by its name."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A bundle's folder is called after its recipe."""
LARGEST_INPUT = 1e30
"""Of what a matrix is multiplied with; far beyond any model's, and far within float32."""
EXACT_BITS = 8
"""From here on, rounding to the nearest loses too little to be made up for."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one matrix [rows, columns] is stored and multiplied."""

    kind: Kind
    """float32: as it is. blocks: a scale per `block_size` neighbours of a row, activations quantised per
    block by the engine. rows: int8, a scale per row, activations int8 with a scale per token. static: as rows, but
    all activations have one scale and zero point, which follow from `low` and `high`."""
    bits: int = 32
    block_size: int = 0
    symmetric: bool = True
    low: float | None = None
    """Smallest value that a static matrix is multiplied with; None as long as nobody has looked."""
    high: float | None = None
    """The largest one."""

    def __post_init__(self) -> None:
        """Raise ValueError for a format that no kernel multiplies with."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"no format of the kind {str(self.kind)[:40]!r}")
        if type(self.bits) is not int or type(self.block_size) is not int or type(self.symmetric) is not bool:
            raise ValueError("bits and block_size are whole numbers, symmetric is true or false")
        if not all(
            end is None or (type(end) in (int, float) and abs(end) < LARGEST_INPUT) for end in (self.low, self.high)
        ):
            raise ValueError("low and high are numbers")
        if self.kind == "blocks" and not (self.bits in (2, 4, 8) and self.block_size in (16, 32, 64, 128)):
            raise ValueError(f"no blocks of {self.block_size} values with {self.bits} bits")

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes that a matrix takes on disk: codes, scales and zero points."""
        match self.kind:
            case "float32":
                return 4 * rows * columns
            case "rows" | "static":
                return rows * (columns + 4)
            case "blocks":
                blocks = -(-columns // self.block_size)
                zero_points = 0 if self.symmetric else -(-blocks * self.bits // 8)
                return rows * (blocks * (self.block_size * self.bits // 8 + 2) + zero_points)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A name and the rules behind it."""

    name: str
    rules: tuple[tuple[str, Format], ...]

    def format_of(self, tensor: str) -> Format:
        """The format of the matrix with that checkpoint name."""
        return next((format_ for pattern, format_ in self.rules if fnmatchcase(tensor, pattern)), FLOAT32)

    def is_narrow(self, tensor: str) -> bool:
        """Whether that matrix loses too much when every value is rounded by itself."""
        return self.format_of(tensor).bits < EXACT_BITS

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of its formats."""
        return {format_.kind for _, format_ in self.rules}

    @property
    def is_fitted(self) -> bool:
        """Whether it has narrow matrices at all."""
        return any(format_.kind == "blocks" and format_.bits < EXACT_BITS for _, format_ in self.rules)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` made.

        Raises:
            ValueError: It is no recipe.
        """
        try:
            name = str(values["name"])
            if not NAME.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is no name of a recipe: letters, digits, '-', '_' and '.' only")
            return cls(name, tuple((str(pattern), Format(**format_)) for pattern, format_ in values["rules"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no recipe: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values for bundle.json."""
        return {"name": self.name, "rules": [[pattern, _set(format_)] for pattern, format_ in self.rules]}

    def with_ranges(self, ranges: Ranges) -> Self:
        """With a rule for every static matrix, which says what it is multiplied with."""
        rules = [(name, replace(self.format_of(name), low=low, high=high)) for name, (low, high) in ranges.items()]
        return replace(self, rules=(*rules, *self.rules))


def _set(format_: Format) -> dict[str, Any]:
    return {name: value for name, value in asdict(format_).items() if value is not None}


FLOAT32 = Format("float32")
INT8_ROWS = Format("rows", bits=8)
INT8_STATIC = Format("static", bits=8)
INT8_BLOCKS = Format("blocks", bits=8, block_size=32)
INT4_BLOCKS = Format("blocks", bits=4, block_size=32, symmetric=False)
INT4_SMALL_BLOCKS = Format("blocks", bits=4, block_size=16, symmetric=False)

VISION, CONNECTOR = "model.vision_model.*", "model.connector.*"
QUERIES_KEYS_VALUES = "model.text_model.layers.*.self_attn.qkv_proj.weight"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("fp32", ()),
        Recipe("int8", ((VISION, INT8_ROWS), ("*", INT8_BLOCKS))),
        # what attention looks at suffers most by the byte, so it keeps eight bits (benchmarks/frontier.py)
        Recipe(
            "int4",
            ((VISION, INT8_ROWS), (QUERIES_KEYS_VALUES, INT8_BLOCKS), (CONNECTOR, INT8_BLOCKS), ("*", INT4_BLOCKS)),
        ),
    )
}
"""What `--quant` offers. Block 32, because 128 divides neither 576 nor 960."""

VISION_FORMATS = {
    "fp32": FLOAT32,
    "int8": INT8_ROWS,
    "int8-static": INT8_STATIC,
    "int8-weights": INT8_BLOCKS,
    "int4": INT4_BLOCKS,
}
"""What `--vision` offers. The connector keeps what the recipe gives it: its int4 would save 3 MB of a 256M model."""


def with_vision(recipe: Recipe, vision: str) -> Recipe:
    """A recipe with another format for the vision encoder."""
    others = (rule for rule in recipe.rules if rule[0] != VISION)
    return Recipe(f"{recipe.name}-vision-{vision}", ((VISION, VISION_FORMATS[vision]), *others))
