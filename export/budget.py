"""The best recipe that fits into a number of bytes: which matrices get eight bits where there is room for some."""

from collections.abc import Mapping, Sequence

from smolvlm_edge.errors import RequestError
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.quantize import INT8_BLOCKS, Recipe


def fit_recipe(recipe: Recipe, matrices: Sequence[Weight], costs: Mapping[str, float], room: int) -> Recipe:
    """Widen the matrices of a recipe that gain most by the byte, until the room is used up.

    Args:
        recipe: What the matrices get at least.
        matrices: Those that may be widened to eight bits.
        costs: What the answers lose when one matrix alone gets what `recipe` gives it, by its name.
        room: Bytes for all of them together.

    Raises:
        RequestError: There is not even room for `recipe`.
    """
    sizes = {each.name: recipe.format_of(each.name).nbytes(*each.shape) for each in matrices}
    extra = {each.name: INT8_BLOCKS.nbytes(*each.shape) - sizes[each.name] for each in matrices}
    room -= sum(sizes.values())
    if room < 0:
        raise RequestError(f"that is {-room / 1e6:.1f} MB too little for the smallest bundle of this model")
    widened = []
    for name in sorted((name for name in extra if extra[name] > 0), key=lambda name: -costs[name] / extra[name]):
        if extra[name] <= room:
            widened.append(name)
            room -= extra[name]
    rules = tuple((name, INT8_BLOCKS) for name in sorted(widened))
    return Recipe(f"{recipe.name}-fitted", rules + recipe.rules)
