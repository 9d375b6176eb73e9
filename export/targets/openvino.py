"""The architecture in OpenVINO's operators, in the forms that its CPU plugin fuses.

A quantised matrix stays compressed while it is multiplied because it is written as constant -> Convert -> Subtract ->
Multiply -> Reshape -> MatMul. The cache is the model's own state: ReadValue -> Gather -> Concat -> Assign, which the
plugin merges into ScaledDotProductAttention. A graph's constants are in memory until it is saved, already rounded.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import TextConfig
from smolvlm_edge.errors import ExportError
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.export.rounding import Rounding
from smolvlm_edge.export.targets import input_grid
from smolvlm_edge.export.targets.rotary import rotary_tables
from smolvlm_edge.graphs.openvino import ov
from smolvlm_edge.quantize import Format, Recipe, round_rows
from smolvlm_edge.quantize.packing import pack_openvino

ops = ov.opset13  # the first with ScaledDotProductAttention
Node = Any
TYPES = {4: (ov.Type.u4, ov.Type.i4), 8: (ov.Type.u8, ov.Type.i8)}
"""Of codes with and without zero points, by their bits."""
MASKED = np.finfo(np.float32).min


class OpenVinoGraphBuilder:
    """A `GraphBuilder` that writes `<name>.xml` and `<name>.bin`.

    Names: node `/layers.3/self_attn/o_proj/MatMul`.
    """

    def __init__(
        self, folder: Path, name: str, recipe: Recipe, on_layer: Callable[[], None], rounding: Rounding
    ) -> None:
        self.folder, self.name, self.recipe, self.layer_done, self.rounding = folder, name, recipe, on_layer, rounding
        self.formats: dict[str, Format] = {}
        self._scopes: list[str] = []
        self._names: set[str] = set()
        self._parameters: list[Node] = []
        self._results: list[Node] = []
        self._assigns: list[Node] = []
        self._arrays: list[npt.NDArray[np.generic]] = []  # constants refer to their memory
        self._text: TextConfig | None = None

    def save(self, producer_version: str) -> None:
        """Write the graph and its weights; the builder is finished then."""
        model = ov.Model(self._results, self._assigns, self._parameters, self.name)
        model.set_rt_info(f"smol-edge {producer_version}", "producer")
        xml, weights = (self.folder / f"{self.name}{suffix}" for suffix in (".xml", ".bin"))
        try:
            ov.serialize(model, xml, weights)
        except RuntimeError as error:
            raise ExportError(f"openvino cannot write {xml}: {error}") from error

    def close(self) -> None:
        """Free the constants."""
        self._parameters, self._results, self._assigns, self._arrays = [], [], [], []

    # -- inputs, outputs and names ------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> Node:
        sizes = [-1 if isinstance(size, str) else size for size in shape]
        parameter = self._named(name, ops.parameter(sizes, np.dtype(dtype)))
        parameter.output(0).set_names({name})
        self._parameters.append(parameter)
        return parameter

    def output(self, name: str, value: Node, dtype: str, shape: Sequence[int | str]) -> None:  # noqa: ARG002 - inferred
        value.output(0).set_names({name})
        self._results.append(self._named(name, ops.result(value)))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._scopes.append(name)
        yield
        self._scopes.pop()

    # -- matrices -----------------------------------------------------------------------------------

    def linear(self, name: str, x: Node, weight: Weight, bias: Weight | None = None) -> Node:
        matrix = self._matrix(weight)
        if self.formats[weight.name].kind == "static":
            x = self._rounded(x, weight)
        missing = matrix.shape[1] - weight.shape[1]
        if missing:  # the last block of a row is filled up with zeros
            rank = x.output(0).get_partial_shape().rank.get_length()
            ends = [0] * (rank - 1) + [missing]
            x = ops.pad(x, [0] * rank, ends, "constant", np.float32(0))
        product = self._named(name, ops.matmul(x, matrix, transpose_a=False, transpose_b=True))
        if bias is None:
            return product
        return self._named(name, ops.add(product, self._weight(bias.name, bias.load())))

    def _rounded(self, x: Node, weight: Weight) -> Node:
        """Activations on the 256 steps that a static matrix expects: the plugin multiplies their bytes then."""
        scale, zero_point = input_grid(self.recipe, weight)
        low, high = (np.float32(scale * (np.float32(code) - zero_point)) for code in (0, 255))
        return ops.fake_quantize(x, low, high, low, high, 256)

    def embedding(self, name: str, input_ids: Node, table: Weight) -> Node:
        matrix = self._matrix(table)
        rows = ops.gather(matrix, input_ids, 0)
        if matrix.shape[1] > table.shape[1]:
            rows = ops.slice(rows, [0], [table.shape[1]], [1], [2])
        return self._named(name, rows)

    def _matrix(self, weight: Weight) -> Node:
        """The float32 matrix [rows, columns], in blocks filled up to whole ones, that a constant is decompressed to."""
        format_ = self.formats[weight.name] = self.recipe.format_of(weight.name)
        match format_.kind:
            case "float32":
                return self._weight(weight.name, weight.load())
            case "rows" | "static":
                rounded = round_rows(weight.load())
                codes = ops.convert(self._weight(f"{weight.name}.codes", rounded.codes), "f32")
                scales = self._weight(f"{weight.name}.scales", rounded.scales[:, None])
                return ops.multiply(codes, scales)
            case "blocks":
                return self._blocks(weight, format_)

    def _blocks(self, weight: Weight, format_: Format) -> Node:
        if format_.bits not in TYPES:
            raise ExportError(f"recipe {self.recipe.name}: openvino takes blocks of 4 or 8 bits, not {format_.bits}")
        unsigned, signed = TYPES[format_.bits]
        rounded = self.rounding(weight, format_)
        rows, blocks, block_size = rounded.codes.shape
        codes, zero_points = pack_openvino(rounded)
        type_ = signed if zero_points is None else unsigned
        values = ops.convert(self._packed(f"{weight.name}.codes", codes, (rows, blocks, block_size), type_), "f32")
        if zero_points is not None:
            packed = self._packed(f"{weight.name}.zero_points", zero_points, (rows, blocks, 1), type_)
            values = ops.subtract(values, ops.convert(packed, "f32"))
        values = ops.multiply(
            values, self._weight(f"{weight.name}.scales", rounded.grid.scales[..., None].astype(np.float32))
        )
        return ops.reshape(values, [rows, blocks * block_size], special_zero=False)

    def patch_embedding(self, pixel_values: Node, weight: Weight, bias: Weight, positions: Weight) -> Node:
        hidden_size, patch_size = weight.shape[0], weight.shape[-1]
        stride, none = [patch_size, patch_size], [0, 0]
        kernel = self._weight(weight.name, weight.load())
        patches = ops.convolution(pixel_values, kernel, stride, none, none, [1, 1])  # [tiles, hidden, side, side]
        patches = ops.add(patches, self._weight(bias.name, bias.load().reshape(1, -1, 1, 1)))
        flat = ops.reshape(patches, [0, hidden_size, -1], special_zero=True)
        flat = self._named("patch_embedding", ops.transpose(flat, [0, 2, 1]))  # [tiles, patches, hidden]
        return self._named("position_embedding", ops.add(flat, self._weight(positions.name, positions.load())))

    # -- norms and activations ----------------------------------------------------------------------

    def layer_norm(
        self, name: str, x: Node, delta: Node | None, weight: Weight, bias: Weight, eps: float
    ) -> tuple[Node, Node]:
        total = self._residual(name, x, delta)
        normed = ops.mvn(total, [-1], normalize_variance=True, eps=eps, eps_mode="inside_sqrt")
        scaled = ops.multiply(normed, self._weight(weight.name, weight.load()))
        return self._named(name, ops.add(scaled, self._weight(bias.name, bias.load()))), total

    def rms_norm(self, name: str, x: Node, delta: Node | None, weight: Weight, eps: float) -> tuple[Node, Node]:
        # the pattern that the plugin knows for its RMSNorm: x * (mean(x**2) + eps)**0.5**-1 * gamma
        total = self._residual(name, x, delta)
        mean = ops.reduce_mean(ops.power(total, np.float32(2)), [-1], keep_dims=True)
        inverse = ops.power(ops.sqrt(ops.add(mean, np.float32(eps))), np.float32(-1))
        normed = ops.multiply(self._weight(weight.name, weight.load()), ops.multiply(total, inverse))
        return self._named(name, normed), total

    def gelu_tanh(self, name: str, x: Node) -> Node:
        return self._named(name, ops.gelu(x, "tanh"))

    def silu_gate(self, name: str, gate: Node, up: Node) -> Node:
        return self._named(name, ops.multiply(ops.swish(gate), up))

    def _residual(self, name: str, x: Node, delta: Node | None) -> Node:
        return x if delta is None else self._named(f"{name}.residual", ops.add(x, delta))

    # -- attention ----------------------------------------------------------------------------------

    def attention(self, name: str, query: Node, key: Node, value: Node, num_heads: int) -> Node:
        head_dim = query.get_output_partial_shape(0)[2].get_length() // num_heads
        heads = [_split_heads(x, num_heads, head_dim) for x in (query, key, value)]
        attended = ops.scaled_dot_product_attention(*heads, causal=False)
        return self._named(name, _join_heads(attended, num_heads * head_dim))

    def begin_cache(self, config: TextConfig) -> None:
        """Declare where new tokens stand, and which sequence of the batch goes on from which.

        position_ids int64 [batch, sequence]: places in the sequence, which begin where the cache ends. beam_idx int32
        [batch]: the plugin knows the pattern of the cache only with it.
        """
        self._text = config
        positions = self.input("position_ids", "int64", ("batch", "sequence"))
        self._beam_idx = self.input("beam_idx", "int32", ("batch",))
        cos, sin = rotary_tables(config)
        self._cos, self._sin = (self._rotary(name, positions, table) for name, table in (("cos", cos), ("sin", sin)))
        self._mask = self._causal_mask(positions)
        batch = ops.gather(ops.shape_of(positions), [0], 0)
        nothing = ops.concat([batch, np.array([config.num_key_value_heads, 0, config.head_dim])], 0)
        self._empty = self._named("cache.empty", ops.broadcast(np.float32(0), nothing))

    def cached_attention(self, name: str, qkv: Node, layer: int) -> Node:
        assert self._text is not None, "begin_cache() comes first"
        text = self._text
        heads, shared, head_dim = text.num_attention_heads, text.num_key_value_heads, text.head_dim
        parts = ops.variadic_split(qkv, 2, [heads * head_dim, shared * head_dim, shared * head_dim]).outputs()
        query, key, value = (
            _split_heads(part, count, head_dim) for part, count in zip(parts, (heads, shared, shared), strict=True)
        )
        query, key = (self._rotate(f"{name}.{part}", x, head_dim) for part, x in (("query", query), ("key", key)))
        keys = self._cache(f"past_key_values.{layer}.key", key, shared, head_dim)
        values = self._cache(f"past_key_values.{layer}.value", value, shared, head_dim)
        keys, values = (_repeat_heads(x, heads // shared, heads, head_dim) for x in (keys, values))
        attended = ops.scaled_dot_product_attention(query, keys, values, self._mask, causal=False)
        return self._named(name, _join_heads(attended, heads * head_dim))

    def _cache(self, name: str, new: Node, heads: int, head_dim: int) -> Node:
        """The state of that name with new keys or values [batch, heads, sequence, head_dim] behind it."""
        info = ov.op.util.VariableInfo()
        info.variable_id, info.data_type = name, ov.Type.f32
        info.data_shape = ov.PartialShape([-1, heads, -1, head_dim])
        variable = ov.op.util.Variable(info)
        past = ops.gather(ov.op.read_value(self._empty, variable), self._beam_idx, 0)
        present = self._named(name, ops.concat([past, new], 2))
        self._assigns.append(self._named(name, ov.op.assign(present, variable)))
        return present

    def _rotary(self, name: str, positions: Node, table: npt.NDArray[np.float32]) -> Node:
        """Cosines or sines of the new tokens' angles [batch, 1, sequence, head_dim]."""
        half = ops.unsqueeze(ops.gather(self._weight(f"rotary.{name}", table), positions, 0), [1])
        return self._named(f"rotary.{name}", ops.concat([half, half], -1))

    def _causal_mask(self, positions: Node) -> Node:
        """What is added to the scores [batch, 1, sequence, cached and new]: nothing sees what comes after it."""
        total = ops.add(ops.reduce_max(positions, [0, 1], keep_dims=False), np.int64(1))
        keys = ops.range(np.int64(0), total, np.int64(1), "i64")
        seen = ops.less_equal(keys, ops.unsqueeze(positions, [1, 3]))
        return self._named("causal_mask", ops.select(seen, np.float32(0), np.float32(MASKED)))

    def _rotate(self, name: str, x: Node, head_dim: int) -> Node:
        """Rotary positions in the halves' order: [first, second] * cos + [-second, first] * sin."""
        first, second = ops.variadic_split(x, 3, [head_dim // 2, -1]).outputs()
        turned = ops.concat([ops.multiply(second, np.float32(-1)), first], -1)
        return self._named(f"{name}.rotary", ops.add(ops.multiply(x, self._cos), ops.multiply(turned, self._sin)))

    # -- shapes -------------------------------------------------------------------------------------

    def pixel_shuffle(self, name: str, x: Node, side: int, hidden_size: int, factor: int) -> Node:
        """Rows and columns of patches are cut into factor × factor squares; each square becomes one token.

        transformers' view and permute chain comes to this one transposition.
        """
        folded = side // factor
        squares = ops.reshape(x, [0, folded, factor, folded, factor * hidden_size], special_zero=True)
        squares = ops.transpose(squares, [0, 1, 3, 2, 4])
        tokens = [0, folded * folded, factor * factor * hidden_size]
        return self._named(name, ops.reshape(squares, tokens, special_zero=True))

    def last_positions(self, name: str, x: Node, count: Node) -> Node:
        return self._named(name, ops.slice(x, ops.negative(count), [2**63 - 1], [1], [1]))

    # -- nodes and weights --------------------------------------------------------------------------

    def _named(self, name: str, node: Node) -> Node:
        """Name a node, and what it is made of as far as that has no name yet.

        The names that nodes are born with count up through the life of a process, and bytes must be repeatable.
        """
        path, unnamed = "/".join(["", *self._scopes, *name.split(".")]), [node]
        while unnamed:
            each = unnamed.pop()
            if each.get_friendly_name() not in self._names:
                each.set_friendly_name(self._unused(f"{path}/{each.get_type_name()}"))
                unnamed += [value.get_node() for value in each.input_values()]
        return node

    def _unused(self, path: str) -> str:
        """The path, with a number if something has that name already."""
        name, count = path, 1
        while name in self._names:
            name, count = f"{path}_{count}", count + 1
        self._names.add(name)
        return name

    def _weight(self, name: str, array: npt.NDArray[np.generic]) -> Node:
        array = np.ascontiguousarray(array)
        return self._constant(name, ov.Tensor(array, shared_memory=True), array)

    def _packed(self, name: str, array: npt.NDArray[np.uint8], shape: Sequence[int], type_: Any) -> Node:
        """A constant of a type that numpy has not."""
        assert array.nbytes * 8 >= math.prod(shape) * type_.bitwidth, "the tensor would reach beyond the array"
        return self._constant(name, ov.Tensor(array, list(shape), type_), array)

    def _constant(self, name: str, tensor: Any, array: npt.NDArray[np.generic]) -> Node:
        self._arrays.append(array)
        constant = ov.op.Constant(tensor, shared_memory=True)
        constant.set_friendly_name(self._unused(name))
        return constant


def _split_heads(x: Node, heads: int, head_dim: int) -> Node:
    """[batch, sequence, heads * head_dim] -> [batch, heads, sequence, head_dim]."""
    return ops.transpose(ops.reshape(x, [0, 0, heads, head_dim], special_zero=True), [0, 2, 1, 3])


def _join_heads(x: Node, width: int) -> Node:
    """The reverse of `_split_heads`, to [batch, sequence, width]."""
    return ops.reshape(ops.transpose(x, [0, 2, 1, 3]), [0, 0, width], special_zero=True)


def _repeat_heads(x: Node, times: int, heads: int, head_dim: int) -> Node:
    """Keys or values [batch, heads / times, positions, head_dim] once for each head of the queries that share them."""
    if times == 1:
        return x
    repeated = ops.broadcast(ops.unsqueeze(x, [2]), [1, 1, times, 1, 1], broadcast_spec="BIDIRECTIONAL")
    return ops.reshape(repeated, [0, heads, -1, head_dim], special_zero=True)
