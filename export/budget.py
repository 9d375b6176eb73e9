"""The best recipe that fits into a number of bytes: eight bits for the matrices that gain most by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from smolvlm_edge.config import ModelConfig
from smolvlm_edge.errors import RequestError
from smolvlm_edge.export.checkpoint import HEAD, TOKEN_TABLE, Checkpoint, Weight
from smolvlm_edge.quantize import INT8_BLOCKS, Format, Recipe

PAGE = 4096
"""Codes, scales and zero points lie apart, each on pages of its own."""
DESCRIPTION_BYTES = 100_000
LAYER_BYTES = 20_000
"""A graph's own file and the manifest take less than this, and less for every layer."""


def fit_recipe(recipe: Recipe, matrices: Sequence[Weight], costs: Mapping[str, float], room: int) -> Recipe:
    """Widen matrices from what a recipe gives them to eight bits, those first that gain most by the byte.

    Args:
        recipe: What every matrix gets at least.
        matrices: All that share the room.
        costs: What rounding one of the narrow matrices alone costs the answers, by its name.
        room: Bytes for all of them together.

    Raises:
        RequestError: There is no room for `recipe`.
    """
    sizes = {each.name: _bytes_on_pages(recipe.format_of(each.name), each) for each in matrices}
    extra = {each.name: _bytes_on_pages(INT8_BLOCKS, each) - sizes[each.name] for each in matrices}
    room -= sum(sizes.values())
    if room < 0:
        raise RequestError(f"the bundle would be {-room / 1e6:.1f} MB too large: give --target-mb more")
    widened = []
    for name in sorted(costs, key=lambda name: -costs[name] / extra[name]):
        if extra[name] <= room:
            widened.append(name)
            room -= extra[name]
    return Recipe(f"{recipe.name}-fitted", tuple((name, INT8_BLOCKS) for name in sorted(widened)) + recipe.rules)


def room_for_layers(target_bytes: int, folder: Path, checkpoint: Checkpoint, model: ModelConfig, recipe: Recipe) -> int:
    """Bytes that a bundle has left for the matrices of the decoder's layers.

    Args:
        target_bytes: Of the whole bundle.
        folder: Everything of it but the decoder.
        checkpoint: Its weights.
        model: Its shape.
        recipe: Of its head.
    """
    text = model.text
    rotary = 2 * (4 * text.max_position_embeddings * text.head_dim // 2 + PAGE)
    norms = (2 * text.num_hidden_layers + 1) * (4 * text.hidden_size + PAGE)
    descriptions = DESCRIPTION_BYTES + text.num_hidden_layers * LAYER_BYTES
    head, table = checkpoint.weights[HEAD], checkpoint.weights[TOKEN_TABLE]
    is_table = head.load is table.load and recipe.format_of(HEAD) == recipe.format_of(TOKEN_TABLE)
    present = sum(file.stat().st_size for file in folder.iterdir())
    return (
        target_bytes
        - present
        - rotary
        - norms
        - descriptions
        - (0 if is_table else _bytes_on_pages(recipe.format_of(HEAD), head))
    )


def _bytes_on_pages(format_: Format, weight: Weight) -> int:
    return format_.nbytes(*weight.shape) + 3 * PAGE
