"""The best recipe that fits into a number of bytes: finer steps for the matrices that gain most by them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.errors import RequestError
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.targets.onnx import cached_head_dim
from smolvlm_edge.quantize import INT4_SMALL_BLOCKS, INT8_BLOCKS, Format, Recipe

PAGE = 4096
"""Codes, scales and zero points lie apart, each on pages of its own."""
DESCRIPTION_BYTES = 100_000
LAYER_BYTES = 20_000
"""A graph's own file and the manifest take less than this, and less for every layer."""
STEPS = ((INT4_SMALL_BLOCKS, 0.28), (INT8_BLOCKS, 0.72))
"""What a matrix is widened to, in this order, and the share of its cost that each step takes away: blocks half as long
have 0.72 of the squared error (measured on a decoder of 135M parameters), eight bits next to none."""


def fit_recipe(recipe: Recipe, matrices: Sequence[Weight], costs: Mapping[str, float], room: int) -> Recipe:
    """Widen matrices step by step from what a recipe gives them, where a byte gains most first.

    Args:
        recipe: What every matrix gets at least.
        matrices: All that share the room.
        costs: What rounding one of the narrow matrices alone costs the answers, by its name.
        room: Bytes for all of them together.

    Raises:
        RequestError: There is no room for `recipe`.
    """
    formats = {each.name: recipe.format_of(each.name) for each in matrices}
    room -= sum(_bytes_on_pages(formats[each.name], each) for each in matrices)
    if room < 0:
        raise RequestError(f"the bundle would be {max(0.1, -room / 1e6):.1f} MB too large: give --target-mb more")
    steps = [step for each in matrices if each.name in costs for step in _steps(each, formats[each.name], costs)]
    widened: dict[str, Format] = {}
    for step in sorted(steps, key=lambda step: -step.gain / step.extra_bytes):
        name = step.weight.name
        if step.extra_bytes <= room and widened.get(name, formats[name]) == step.before:
            widened[name] = step.after
            room -= step.extra_bytes
    return Recipe(f"{recipe.name}-fitted", tuple(sorted(widened.items(), key=lambda item: item[0])) + recipe.rules)


def room_for_matrices(target_bytes: int, folder: Path, model: ModelConfig) -> int:
    """Bytes that a bundle has left for the token table and the matrices of the decoder.

    Args:
        target_bytes: Of the whole bundle.
        folder: Everything of it but these two graphs.
        model: Its shape.
    """
    text = model.text
    rotary = 2 * (4 * text.max_position_embeddings * cached_head_dim(text.head_dim) // 2 + PAGE)
    norms = (2 * text.num_hidden_layers + 1) * (4 * text.hidden_size + PAGE)
    descriptions = DESCRIPTION_BYTES + text.num_hidden_layers * LAYER_BYTES
    present = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return target_bytes - present - rotary - norms - descriptions


@dataclass(frozen=True, slots=True)
class _Step:
    """A matrix, widened."""

    weight: Weight
    before: Format
    after: Format
    gain: float
    """What it takes away from the costs."""

    @property
    def extra_bytes(self) -> int:
        return self.after.nbytes(*self.weight.shape) - self.before.nbytes(*self.weight.shape)


def _steps(weight: Weight, format_: Format, costs: Mapping[str, float]) -> Iterator[_Step]:
    for wider, share in STEPS:
        step = _Step(weight, format_, wider, share * costs[weight.name])
        if step.extra_bytes > 0:
            yield step
            format_ = wider


def _bytes_on_pages(format_: Format, weight: Weight) -> int:
    return format_.nbytes(*weight.shape) + 3 * PAGE
