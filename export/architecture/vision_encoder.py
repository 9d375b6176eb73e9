"""pixel_values -> last_hidden_state: the SigLIP tower."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.export.targets import GraphBuilder, Value

PREFIX = "model.vision_model"
VECTOR = 8


def vision_encoder(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """pixel_values float32 [tiles, 3, H, W] -> last_hidden_state float32 [tiles, patches, vision hidden].

    Tiles are always full squares, so that every patch is valid and has the same position in every tile.
    """
    vision = config.vision
    size, patches, hidden_size = vision.image_size, vision.patches_per_side**2, vision.hidden_size
    pixel_values = graph.input("pixel_values", "float32", ("tiles", vision.num_channels, size, size))
    hidden, delta = patch_embeddings(graph, checkpoint, config, pixel_values), None  # type: Value, Value | None
    for i in range(vision.num_hidden_layers):
        hidden, delta = vision_layer(graph, checkpoint, config, i, hidden, delta)
        graph.layer_done()
    weight, bias = (checkpoint.weight(f"{PREFIX}.post_layernorm.{part}", hidden_size) for part in ("weight", "bias"))
    last_hidden_state, _ = graph.layer_norm("post_layernorm", hidden, delta, weight, bias, vision.layer_norm_eps)
    graph.output("last_hidden_state", last_hidden_state, "float32", ("tiles", patches, hidden_size))


def patch_embeddings(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig, pixel_values: Value) -> Value:
    """[tiles, 3, H, W] -> [tiles, patches, vision hidden]."""
    vision = config.vision
    patches, hidden_size, patch_size = vision.patches_per_side**2, vision.hidden_size, vision.patch_size
    weight = (hidden_size, vision.num_channels, patch_size, patch_size)
    table = checkpoint.weight(f"{PREFIX}.embeddings.position_embedding.weight", patches, hidden_size)
    rows = patch_positions(vision.patches_per_side)
    positions = replace(table, load=lambda: table.load()[rows])
    with graph.scope("embeddings"):
        return graph.patch_embedding(
            pixel_values,
            checkpoint.weight(f"{PREFIX}.embeddings.patch_embedding.weight", *weight),
            checkpoint.weight(f"{PREFIX}.embeddings.patch_embedding.bias", hidden_size),
            positions,
        )


def patch_positions(side: int) -> npt.NDArray[np.int64]:
    """Which row of the position table each patch of a full square takes, [side * side].

    transformers 5.23 (modeling_idefics3.py, Idefics3VisionEmbeddings) finds a patch's row and column by looking up its
    fractional coordinate among the multiples of 1 / side. Both are rounded to float32, so that for some sides, such as
    19, 25 or 29, a few patches fall into the bucket beside their own.
    """
    coordinates = np.arange(side, dtype=np.float32) * (np.float32(1) / np.float32(side))
    coordinates = np.minimum(coordinates, np.float32(1 - 1e-6))
    boundaries = _multiples(1 / side)
    buckets = np.searchsorted(boundaries, coordinates, side="right")
    return (buckets[:, None] * side + buckets).reshape(-1)


def _multiples(step: float) -> npt.NDArray[np.float32]:
    """The multiples of a step below 1, each rounded as torch.arange(step, 1, step) rounds it.

    It counts in vectors from a first value in float32, two vectors at a time, and what is left over one by one. Vectors
    have eight values, as with AVX2; with AVX-512 they have sixteen, and torch itself comes to other buckets.
    """
    index = np.arange(math.ceil((1 - step) / step))
    whole = len(index) - len(index) % (2 * VECTOR)
    first = np.where(index < whole, index - index % VECTOR, index)
    return ((step + step * first).astype(np.float32) + step * (index - first)).astype(np.float32)


def vision_layer(
    graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig, index: int, hidden: Value, delta: Value | None
) -> tuple[Value, Value]:
    """One layer: the residual stream before its MLP, and what the MLP adds to it; both [tiles, patches, hidden]."""
    with graph.scope(f"layers.{index}"):
        layer = _Layer(graph, checkpoint, config, f"{PREFIX}.encoder.layers.{index}")
        normed, hidden = layer.norm("layer_norm1", hidden, delta)
        delta = layer.self_attention(normed)
        normed, hidden = layer.norm("layer_norm2", hidden, delta)
        return hidden, layer.mlp(normed)


class _Layer:
    """One encoder layer; every method takes and returns [tiles, patches, hidden]."""

    def __init__(self, graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig, prefix: str) -> None:
        self.graph, self.checkpoint, self.config, self.prefix = graph, checkpoint, config.vision, prefix

    def norm(self, name: str, hidden: Value, delta: Value | None) -> tuple[Value, Value]:
        size = self.config.hidden_size
        weight, bias = (self.checkpoint.weight(f"{self.prefix}.{name}.{part}", size) for part in ("weight", "bias"))
        return self.graph.layer_norm(name, hidden, delta, weight, bias, self.config.layer_norm_eps)

    def self_attention(self, x: Value) -> Value:
        size = self.config.hidden_size
        query, key, value = (self.linear(f"self_attn.{name}", x, size, size) for name in ("q_proj", "k_proj", "v_proj"))
        attended = self.graph.attention("self_attn", query, key, value, self.config.num_attention_heads)
        return self.linear("self_attn.out_proj", attended, size, size)

    def mlp(self, x: Value) -> Value:
        size, inner = self.config.hidden_size, self.config.intermediate_size
        return self.linear(
            "mlp.fc2", self.graph.gelu_tanh("mlp.act", self.linear("mlp.fc1", x, inner, size)), size, inner
        )

    def linear(self, name: str, x: Value, rows: int, columns: int) -> Value:
        weight = self.checkpoint.weight(f"{self.prefix}.{name}.weight", rows, columns)
        bias = self.checkpoint.weight(f"{self.prefix}.{name}.bias", rows)
        return self.graph.linear(name, x, weight, bias)
