"""How a decoder's rotary frequencies are scaled for a longer context (`rope_scaling`, or `rope_parameters`).

Keys, defaults and which of the two spellings comes first are those of transformers 5.23 (modeling_rope_utils.py,
convert_rope_params_to_dict and standardize_rope_params).
"""

from dataclasses import dataclass
from typing import Self

from smolvlm_edge.bundle.reading import Section
from smolvlm_edge.errors import IntegrityError, UnsupportedModelError

ROPE_TYPES = ("linear", "dynamic", "yarn", "llama3")
"""The others choose frequencies by the length of every single prompt (longrope) or turn a part of a head only."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """The numbers behind one of ROPE_TYPES."""

    rope_type: str
    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @classmethod
    def from_section(cls, rope: Section, rope_type: str, max_positions: int, original: int) -> Self:
        """Read the keys that this type has.

        Args:
            rope: The file's object.
            rope_type: One of ROPE_TYPES.
            max_positions: The model's context.
            original: The one that it was trained with, if the object names none.

        Raises:
            IntegrityError: One is missing, of another type or out of range.
        """
        original = rope.integer("original_max_position_embeddings", original, least=1)
        if rope_type == "yarn" and rope.values.get("factor") is None:
            factor = max_positions / original
        else:
            factor = _positive(rope, "factor")
        if rope_type == "llama3":
            low, high = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
            if low == high:
                raise IntegrityError(f"{rope.place}: low_freq_factor and high_freq_factor must differ")
            return cls(rope_type, factor, original, low, high)
        if rope_type == "yarn":
            keys = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
            numbers = {key: _positive(rope, key) for key in keys if rope.values.get(key)}
            return cls(rope_type, factor, original, **numbers, truncate=rope.flag("truncate", True))
        return cls(rope_type, factor, original)


def read_rope(text: Section) -> tuple[float, RopeScaling | None]:
    """The rotary base, and how it is scaled.

    Raises:
        IntegrityError: A value is missing, of another type or out of range.
        UnsupportedModelError: A kind of scaling that is none of ROPE_TYPES.
    """
    name = next((key for key in ("rope_scaling", "rope_parameters") if text.values.get(key)), None)
    rope = text.section(name) if name else Section({}, text.place)
    theta = _positive(rope if rope.values.get("rope_theta") is not None else text, "rope_theta")
    for section in (rope, text):
        section.refuse("partial_rotary_factor", 1)
    rope_type = rope.values.get("rope_type") or rope.values.get("type") or "default"
    if rope_type == "default":
        return theta, None
    if rope_type not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"{rope.place}: rope_type={rope.shown('rope_type' if 'rope_type' in rope.values else 'type')} "
            f"is not supported: smol-edge knows {', '.join(ROPE_TYPES)}"
        )
    max_positions = text.integer("max_position_embeddings", least=1)
    original = text.integer("original_max_position_embeddings", max_positions, least=1)
    return theta, RopeScaling.from_section(rope, rope_type, max_positions, original)


def _positive(section: Section, key: str) -> float:
    value = section.number(key)
    if value <= 0:
        raise IntegrityError(f"{section.place}: {key} must be above 0, not {value}")
    return value
