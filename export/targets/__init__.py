"""What the architecture asks of a target: one method per kind of layer.

A target decides the operators, the layout of the weights and, through a recipe, their width. The
architecture decides nothing but the model; adding a target must not touch `architecture/`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.errors import RequestError
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import Rounding
from smolvlm_edge.quantize import Format, Recipe, byte_grid

Value = Any
"""A tensor inside the graph being built; opaque to the architecture."""


class GraphBuilder(Protocol):
    """One graph under construction. Shapes may hold names for lengths known only at run time."""

    def input(self, name: str, dtype: Literal["float32", "int64"], shape: tuple[int | str, ...]) -> Value:
        """Declare an input."""

    def output(self, name: str, value: Value, dtype: Literal["float32"], shape: tuple[int | str, ...]) -> None:
        """Declare an output."""

    def scope(self, name: str) -> AbstractContextManager[None]:
        """Prefix the names of everything built inside."""

    def layer_done(self) -> None:
        """Tell whoever watches that another piece is written."""

    def linear(self, name: str, x: Value, weight: Weight, bias: Weight | None = None) -> Value:
        """[..., columns] -> [..., rows] for a weight [rows, columns]."""

    def embedding(self, name: str, input_ids: Value, table: Weight) -> Value:
        """[batch, sequence] -> [batch, sequence, hidden] for a table [vocab_size, hidden]."""

    def patch_embedding(self, pixel_values: Value, weight: Weight, bias: Weight, positions: Weight) -> Value:
        """[tiles, channels, H, W] -> [tiles, patches, hidden]: a convolution as wide as its stride, plus positions."""

    def layer_norm(
        self, name: str, x: Value, delta: Value | None, weight: Weight, bias: Weight, eps: float
    ) -> tuple[Value, Value]:
        """(LayerNorm(x + delta), x + delta)."""

    def rms_norm(self, name: str, x: Value, delta: Value | None, weight: Weight, eps: float) -> tuple[Value, Value]:
        """(RMSNorm(x + delta), x + delta)."""

    def gelu_tanh(self, name: str, x: Value) -> Value:
        """GELU in its tanh approximation."""

    def silu_gate(self, name: str, gate: Value, up: Value) -> Value:
        """Multiply SiLU(gate) by up."""

    def attention(self, name: str, query: Value, key: Value, value: Value, num_heads: int) -> Value:
        """Attention of every position to every position; all arguments [tiles, patches, hidden]."""

    def begin_cache(self, config: TextConfig) -> None:
        """Declare what carries keys and values from call to call, once per decoder."""

    def cached_attention(self, name: str, qkv: Value, layer: int) -> Value:
        """Causal attention with rotary positions over the cache and the new tokens.

        `qkv` is [batch, sequence, (heads + 2 key/value heads) * head_dim].
        """

    def pixel_shuffle(self, name: str, x: Value, side: int, hidden_size: int, factor: int) -> Value:
        """[tiles, side * side, hidden] -> [tiles, (side / factor)**2, hidden * factor**2], neighbours folded."""

    def last_positions(self, name: str, x: Value, count: Value) -> Value:
        """The last `count` positions of [batch, sequence, hidden]."""


class Builder(GraphBuilder, Protocol):
    """What is done with a graph besides describing it."""

    formats: dict[str, Format]
    """What every matrix of it got, by its name."""

    def save(self, producer_version: str) -> None:
        """Write the graph's files; the builder is finished then."""

    def close(self) -> None:
        """Free what the builder holds, saved or not."""


def input_grid(recipe: Recipe, weight: Weight) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of what a static matrix is multiplied with.

    Raises:
        RequestError: The recipe does not know its range.
    """
    format_ = recipe.format_of(weight.name)
    if format_.low is None or format_.high is None:
        raise RequestError(
            f"recipe {recipe.name}: what {weight.name} is multiplied with has to be seen first: "
            "calibrate with a set that has pictures (static is for the vision encoder)"
        )
    return byte_grid(format_.low, format_.high)


NewBuilder = Callable[[Path, str, Recipe, Callable[[], None], Rounding], Builder]
"""Begins a graph: where it will be saved, its name, which matrix gets which number format, what to call after every
layer, and what makes the codes of a matrix."""
