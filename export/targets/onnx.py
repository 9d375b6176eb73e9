"""The architecture in ONNX Runtime's own operators (domain com.microsoft).

Every operator used has a CPU kernel since ONNX Runtime 1.31.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.errors import ExportError
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import Rounding, round_to_nearest
from smolvlm_edge.export.targets import input_grid
from smolvlm_edge.export.targets.onnx_writer import OnnxWriter
from smolvlm_edge.export.targets.rotary import rotary_tables
from smolvlm_edge.quantize import BlockQuantized, Format, Recipe, round_rows
from smolvlm_edge.quantize.packing import PackedBlocks, pack_gather_block_quantized, pack_matmul_nbits

FLOAT = int(ir.DataType.FLOAT)
INT8_ACTIVATIONS = 4  # accuracy_level; without it 8-bit MatMulNBits has no packed kernel and is 40 times slower


def cached_head_dim(head_dim: int) -> int:
    """Values that the cache holds of every head: GroupQueryAttention rotates multiples of sixteen only."""
    return -(-head_dim // 16) * 16


class OnnxGraphBuilder(OnnxWriter):
    """A `GraphBuilder` of such operators."""

    def __init__(
        self,
        folder: Path,
        name: str,
        recipe: Recipe,
        on_layer: Callable[[], None] = lambda: None,
        rounding: Rounding = round_to_nearest,
        *,
        stored: dict[bytes, tuple[str, int]] | None = None,
    ) -> None:
        """Begin a graph.

        Args:
            folder: Of the bundle.
            name: Of the graph.
            recipe: Which matrix gets which number format.
            on_layer: Called after every layer.
            rounding: Makes the codes of a matrix.
            stored: Where the bundle's arrays lie, by their sha256: file and offset. Graphs that are given the same
                one store an array that they share, such as a token table that is the head too, once.
        """
        super().__init__(folder, name, {} if stored is None else stored)
        self.recipe, self.layer_done, self.rounding = recipe, on_layer, rounding
        self.formats: dict[str, Format] = {}
        self._text: TextConfig | None = None

    # -- matrices -----------------------------------------------------------------------------------

    def linear(self, name: str, x: ir.Value, weight: Weight, bias: Weight | None = None) -> ir.Value:
        format_ = self.formats[weight.name] = self.recipe.format_of(weight.name)
        match format_.kind:
            case "float32":
                product = self.node(name, "MatMul", [x, self.weight(weight.name, weight.load().T)])
            case "rows":
                product = self._linear_rows(name, x, weight)
            case "static":
                return self._linear_static(name, x, weight, bias)
            case "blocks":
                return self._linear_blocks(name, x, weight, bias, format_)
        if bias is None:
            return product
        return self.node(name, "Add", [product, self.weight(bias.name, bias.load())])

    def _linear_blocks(self, name: str, x: ir.Value, weight: Weight, bias: Weight | None, format_: Format) -> ir.Value:
        group_index, rows, columns = None, *weight.shape
        return self.node(
            name,
            "MatMulNBits",
            [
                x,
                *self._blocks(weight, format_, pack_matmul_nbits),
                group_index,
                None if bias is None else self.weight(bias.name, bias.load()),
            ],
            K=columns,
            N=rows,
            bits=format_.bits,
            block_size=format_.block_size,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def _linear_rows(self, name: str, x: ir.Value, weight: Weight) -> ir.Value:
        """Quantise activations with one scale per token: x / m -> DynamicQuantizeMatMul -> * m.

        The operator itself has one activation scale per tensor. Once every token is divided by m, its own
        largest magnitude, that one scale fits each of them within a factor of two, at the speed of the fused
        kernel.
        """
        rounded = round_rows(weight.load())
        magnitude = self.node(f"{name}/max", "Abs", [x])
        magnitude = self.node(f"{name}/max", "ReduceMax", [magnitude, self.constant("last_axis", [-1])])
        # a token of zeros must not be divided by zero
        magnitude = self.node(f"{name}/max", "Max", [magnitude, self.constant("tiny", np.float32(1e-30))])
        normalised = self.node(name, "Div", [x, magnitude])
        codes = self.weight(f"{weight.name}.codes", rounded.codes.T)
        scales = self.weight(f"{weight.name}.scales", rounded.scales)
        product = self.node(name, "DynamicQuantizeMatMul", [normalised, codes, scales])
        return self.node(name, "Mul", [product, magnitude])

    def _linear_static(self, name: str, x: ir.Value, weight: Weight, bias: Weight | None) -> ir.Value:
        """Quantise activations with a scale known in advance; the product comes out in float32."""
        rounded, (scale, zero_point) = round_rows(weight.load()), input_grid(self.recipe, weight)
        grid = [self.constant(f"scale_{scale}", scale), self.constant(f"zero_point_{zero_point}", zero_point)]
        return self.node(
            name,
            "MatMulIntegerToFloat",
            [
                self.node(name, "QuantizeLinear", [x, *grid]),
                self.weight(f"{weight.name}.codes", rounded.codes.T),
                grid[0],
                self.weight(f"{weight.name}.scales", rounded.scales),
                grid[1],
                None,
                None if bias is None else self.weight(bias.name, bias.load()),
            ],
        )

    def embedding(self, name: str, input_ids: ir.Value, table: Weight) -> ir.Value:
        format_ = self.formats[table.name] = self.recipe.format_of(table.name)
        if format_.kind in {"rows", "static"}:
            raise ExportError(f"recipe {self.recipe.name}: a token table cannot be stored in rows, only in blocks")
        if format_.kind == "float32":
            return self.node(name, "Gather", [self.weight(table.name, table.load()), input_ids])
        codes, scales, zero_points = self._blocks(table, format_, pack_gather_block_quantized)
        return self.node(
            name,
            "GatherBlockQuantized",
            [codes, input_ids, scales, zero_points],
            bits=format_.bits,
            block_size=format_.block_size,
            gather_axis=0,
            quantize_axis=1,
        )

    def _blocks(
        self, weight: Weight, format_: Format, pack: Callable[[BlockQuantized], PackedBlocks]
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Codes, scales and zero points of a matrix, rounded block by block."""
        codes, scales, zero_points = pack(self.rounding(weight, format_))
        return (
            self.weight(f"{weight.name}.codes", codes),
            # half the bytes on disk; the engine widens them once, when it opens the graph
            self.node(f"{weight.name}.scales", "Cast", [self.weight(f"{weight.name}.scales", scales)], to=FLOAT),
            None if zero_points is None else self.weight(f"{weight.name}.zero_points", zero_points),
        )

    def patch_embedding(self, pixel_values: ir.Value, weight: Weight, bias: Weight, positions: Weight) -> ir.Value:
        hidden_size, patch_size = weight.shape[0], weight.shape[-1]
        patches = self.node(
            "patch_embedding",
            "Conv",
            [pixel_values, self.weight(weight.name, weight.load()), self.weight(bias.name, bias.load())],
            kernel_shape=[patch_size, patch_size],
            strides=[patch_size, patch_size],
        )  # [tiles, hidden, side, side]
        flat = self._reshape("patch_embedding", patches, [0, hidden_size, -1])
        flat = self.node("patch_embedding", "Transpose", [flat], perm=[0, 2, 1])  # [tiles, patches, hidden]
        return self.node("position_embedding", "Add", [flat, self.weight(positions.name, positions.load())])

    # -- norms and activations ----------------------------------------------------------------------

    def layer_norm(
        self, name: str, x: ir.Value, delta: ir.Value | None, weight: Weight, bias: Weight, eps: float
    ) -> tuple[ir.Value, ir.Value]:
        # not SkipLayerNormalization: its kernel works through a row number by number, 6 times slower than these two
        total = x if delta is None else self.node(f"{name}.residual", "Add", [x, delta])
        gamma, beta = self.weight(weight.name, weight.load()), self.weight(bias.name, bias.load())
        return self.node(name, "LayerNormalization", [total, gamma, beta], axis=-1, epsilon=eps), total

    def rms_norm(
        self, name: str, x: ir.Value, delta: ir.Value | None, weight: Weight, eps: float
    ) -> tuple[ir.Value, ir.Value]:
        gamma = self.weight(weight.name, weight.load())
        if delta is None:
            return self.node(name, "SimplifiedLayerNormalization", [x, gamma], axis=-1, epsilon=eps), x
        normed, _, _, total = self.node_with_outputs(
            name, "SkipSimplifiedLayerNormalization", [x, delta, gamma], outputs=4, epsilon=eps
        )
        return normed, total

    def gelu_tanh(self, name: str, x: ir.Value) -> ir.Value:
        return self.node(name, "FastGelu", [x])

    def silu_gate(self, name: str, gate: ir.Value, up: ir.Value) -> ir.Value:
        # QuickGelu is x * sigmoid(alpha * x); with alpha 1 that is SiLU, in one operator
        return self.node(name, "Mul", [self.node(name, "QuickGelu", [gate], alpha=1.0), up])

    # -- attention ----------------------------------------------------------------------------------

    def attention(self, name: str, query: ir.Value, key: ir.Value, value: ir.Value, num_heads: int) -> ir.Value:
        return self.node(name, "MultiHeadAttention", [query, key, value], num_heads=num_heads)

    def begin_cache(self, config: TextConfig) -> None:
        """Declare the lengths that GroupQueryAttention wants, and the tables of its rotary positions.

        seqlens_k int32 [batch]: cached and new tokens together, minus one. total_sequence_length int32
        scalar: the same without the minus one.
        """
        self._text = config
        self._seqlens_k = self.input("seqlens_k", "int32", ["batch"])
        self._total_sequence_length = self.input("total_sequence_length", "int32", [])
        missing = (cached_head_dim(config.head_dim) - config.head_dim) // 2
        cos, sin = (np.pad(table, ((0, 0), (0, missing))) if missing else table for table in rotary_tables(config))
        self._cos, self._sin = self.weight("rotary.cos", cos), self.weight("rotary.sin", sin)

    def cached_attention(self, name: str, qkv: ir.Value, layer: int) -> ir.Value:
        assert self._text is not None, "begin_cache() comes first"
        text, size = self._text, cached_head_dim(self._text.head_dim)
        past_shape: list[int | str] = ["batch", text.num_key_value_heads, "past_sequence_length", size]
        present_shape: list[int | str] = ["batch", text.num_key_value_heads, "present_sequence_length", size]
        past = [self.input(f"past_key_values.{layer}.{part}", "float32", past_shape) for part in ("key", "value")]
        scale = {}
        if size > text.head_dim:
            heads = text.num_attention_heads + 2 * text.num_key_value_heads
            qkv, scale = self._widen_heads(name, qkv, heads, text.head_dim), {"scale": text.head_dim**-0.5}
        attended, *present = self.node_with_outputs(
            name,
            "GroupQueryAttention",
            [qkv, None, None, *past, self._seqlens_k, self._total_sequence_length, self._cos, self._sin],
            outputs=3,
            num_heads=text.num_attention_heads,
            kv_num_heads=text.num_key_value_heads,
            do_rotary=1,
            **scale,
        )
        for part, value in zip(("key", "value"), present, strict=True):
            self.output(f"present.{layer}.{part}", value, "float32", present_shape)
        return attended if not scale else self._narrow_heads(name, attended, text.num_attention_heads, text.head_dim)

    def _widen_heads(self, name: str, x: ir.Value, heads: int, head_dim: int) -> ir.Value:
        """Both halves of every head filled up with zeros, which rotate to zeros and add nothing to a product."""
        size = cached_head_dim(head_dim)
        halves = self._reshape(f"{name}/wide", x, [0, 0, heads, 2, head_dim // 2])
        pads = self.constant(f"pads_{size - head_dim}", [0, (size - head_dim) // 2])
        halves = self.node(f"{name}/wide", "Pad", [halves, pads, None, self.constant("last_axis", [-1])])
        return self._reshape(f"{name}/widened", halves, [0, 0, heads * size])

    def _narrow_heads(self, name: str, x: ir.Value, heads: int, head_dim: int) -> ir.Value:
        """The reverse of `_widen_heads`."""
        halves = self._reshape(f"{name}/narrow", x, [0, 0, heads, 2, cached_head_dim(head_dim) // 2])
        start, end = self.constant("zero", [0]), self.constant(f"half_{head_dim}", [head_dim // 2])
        halves = self.node(f"{name}/narrow", "Slice", [halves, start, end, self.constant("last_axis", [-1])])
        return self._reshape(f"{name}/narrowed", halves, [0, 0, heads * head_dim])

    # -- shapes -------------------------------------------------------------------------------------

    def pixel_shuffle(self, name: str, x: ir.Value, side: int, hidden_size: int, factor: int) -> ir.Value:
        """Rows and columns of patches are cut into factor × factor squares; each square becomes one token.

        transformers' view and permute chain comes to this one transposition.
        """
        folded = side // factor
        squares = self._reshape(f"{name}/squares", x, [0, folded, factor, folded, factor * hidden_size])
        squares = self.node(name, "Transpose", [squares], perm=[0, 1, 3, 2, 4])
        return self._reshape(f"{name}/tokens", squares, [0, folded * folded, factor * factor * hidden_size])

    def last_positions(self, name: str, x: ir.Value, count: ir.Value) -> ir.Value:
        start = self.node(name, "Neg", [count])
        ends, axes = self.constant("int64_max", [2**63 - 1]), self.constant("axis_1", [1])
        return self.node(name, "Slice", [x, start, ends, axes])

    def _reshape(self, name: str, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        target = "_".join(map(str, shape))
        return self.node(name, "Reshape", [x, self.constant(f"shape_{target}", shape)])
