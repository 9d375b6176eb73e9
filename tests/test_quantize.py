"""Rounding and packing: what the codes stand for, and that ONNX Runtime's kernels read them so."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smolvlm_edge.graphs.onnxruntime import ort
from smolvlm_edge.quantize import RECIPES, Format, Recipe, round_blocks, round_rows
from smolvlm_edge.quantize.packing import pack_codes, pack_gather_block_quantized, pack_matmul_nbits
from smolvlm_edge.quantize.rounding import choose_grid

matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 80)),
    elements=st.floats(-100, 100, width=32),
)


def plainly(weight: np.ndarray, bits: int, block_size: int, symmetric: bool) -> np.ndarray:
    """Rounding over the whole range of every block, as the formats' descriptions say it."""
    columns = weight.shape[1]
    blocks = np.pad(weight, ((0, 0), (0, -columns % block_size))).reshape(len(weight), -1, block_size).astype(float)
    if symmetric:
        half = 2 ** (bits - 1)
        step = np.abs(blocks).max(-1, keepdims=True) / (half - 1)
        step[step == 0] = 1
        values = np.clip(np.rint(blocks / step), -half, half - 1) * step
    else:
        low, high = np.minimum(blocks.min(-1, keepdims=True), 0), np.maximum(blocks.max(-1, keepdims=True), 0)
        step = (high - low) / (2**bits - 1)
        step[step == 0] = 1
        zero = np.rint(-low / step)
        values = (np.clip(np.rint(blocks / step) + zero, 0, 2**bits - 1) - zero) * step
    return values.reshape(len(weight), -1)[:, :columns]


@given(matrices, st.sampled_from([2, 4, 8]), st.sampled_from([16, 32, 64]), st.booleans())
def test_blocks_err_no_more_than_over_the_plain_range(weight, bits, block_size, symmetric) -> None:
    rounded = round_blocks(weight, bits, block_size, symmetric=symmetric)
    plain = np.square(plainly(weight, bits, block_size, symmetric) - weight).sum()
    # a scale in float16 is off by up to 1 / 2048 of itself, or of the smallest normal number
    slack = 1e-3 * np.abs(weight).max(initial=0) + 1e-6
    error = np.square(rounded.dequantize().astype(float) - weight).sum()
    assert np.sqrt(error) <= np.sqrt(plain) + slack * np.sqrt(weight.size)
    assert rounded.codes.max() < 2**bits


@given(matrices)
def test_blocks_of_8_bits_err_by_half_a_step_at_most(weight) -> None:
    rounded = round_blocks(weight, 8, 32, symmetric=True)
    steps = np.repeat(rounded.grid.scales.astype(float), 32, axis=1)[:, : weight.shape[1]]
    # the largest code may miss the largest value by what float16 takes from 127 steps
    assert np.all(np.abs(rounded.dequantize() - weight) <= steps * 0.57 + 1e-5)


def test_clipping_pays_where_one_value_stands_out() -> None:
    """31 values of a block near 1 and one at 3: a range up to 3 has steps too coarse for the many."""
    weight = np.linspace(-1, 1, 32, dtype=np.float32)[None].copy()
    weight[0, 5] = 3
    clipped = np.square(round_blocks(weight, 2, 32, symmetric=False).dequantize() - weight).sum()
    assert clipped < 0.9 * np.square(plainly(weight, 2, 32, symmetric=False) - weight).sum()


def test_a_column_that_matters_more_is_served_better() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 32), np.float32)
    importance = np.ones(32, np.float32)
    importance[7] = 1000

    def error(grid) -> float:
        values = grid.values(grid.nearest(weight[:, None]))[:, 0]
        return float(np.square(values - weight)[:, 7].sum())

    plain = choose_grid(weight, 4, 32, symmetric=False)
    assert error(choose_grid(weight, 4, 32, symmetric=False, importance=importance)) < 0.5 * error(plain)


@given(matrices, st.booleans())
def test_zero_stays_zero(weight, symmetric) -> None:
    weight[:, ::3] = 0
    assert np.all(round_blocks(weight, 4, 16, symmetric=symmetric).dequantize()[:, ::3] == 0)


@given(matrices)
def test_rows_err_by_half_a_step_at_most(weight) -> None:
    rounded = round_rows(weight)
    assert np.all(np.abs(rounded.dequantize() - weight) <= rounded.scales[:, None] * 0.5 + 1e-5)


def test_rounding_in_pieces_changes_nothing(monkeypatch) -> None:
    weight = np.random.default_rng(0).standard_normal((37, 48), np.float32)
    whole = round_blocks(weight, 4, 32, symmetric=False)
    monkeypatch.setattr("smolvlm_edge.quantize.rounding.VALUES_AT_ONCE", 100)
    pieces = round_blocks(weight, 4, 32, symmetric=False)
    np.testing.assert_array_equal(whole.dequantize(), pieces.dequantize())


def test_symmetric_codes_of_a_known_row() -> None:
    rounded = round_blocks(np.array([[-7.0, 0.0, 3.4, 7.0]], np.float32), 4, 16, symmetric=True)
    assert rounded.codes[0, 0, :4].tolist() == [1, 8, 11, 15]
    assert rounded.grid.scales.tolist() == [[1.0]]


def test_asymmetric_codes_of_a_known_row() -> None:
    rounded = round_blocks(np.array([[-5.0, 0.0, 4.4, 10.0]], np.float32), 4, 16, symmetric=False)
    assert rounded.codes[0, 0, :4].tolist() == [0, 5, 9, 15]
    assert rounded.grid.zero_points is not None
    assert rounded.grid.zero_points.tolist() == [[5]]


@pytest.mark.parametrize(("bits", "expected"), [(8, [1, 2, 3]), (4, [0x21, 0x03]), (2, [0b00_11_10_01])])
def test_earlier_codes_take_the_lower_bits(bits: int, expected: list[int]) -> None:
    assert pack_codes(np.array([1, 2, 3], np.uint8), bits).tolist() == expected


def run_node(
    op_type: str, inputs: dict[str, np.ndarray], feeds: dict[str, np.ndarray], **attributes: int
) -> np.ndarray:
    """One operator of ONNX Runtime's own on the given weights."""

    def value(name: str, array: np.ndarray) -> ir.Value:
        dtype = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        return ir.Value(name=name, type=dtype, shape=ir.Shape(array.shape))

    values = {name: value(name, array) for name, array in {**feeds, **inputs}.items()}
    for name, array in inputs.items():
        values[name].const_value = ir.Tensor(array, name=name)
    order = ["x", "codes", "scales", "zero_points"] if "x" in values else ["codes", "ids", "scales", "zero_points"]
    node = ir.node(op_type, [values.get(name) for name in order], attributes, domain="com.microsoft")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [values[name] for name in feeds],
        node.outputs,
        nodes=[node],
        initializers=[values[name] for name in inputs],
        opset_imports={"": 21, "com.microsoft": 1},
        name="one",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return ort.InferenceSession(model).run(None, feeds)[0]


def packed(rounded, pack) -> dict[str, np.ndarray]:
    codes, scales, zero_points = pack(rounded)
    inputs = {"codes": codes, "scales": scales.astype(np.float32)}  # graphs hold a cast
    return inputs if zero_points is None else inputs | {"zero_points": zero_points}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 100),
    bits=st.sampled_from([2, 4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
)
def test_matmul_nbits_reads_what_was_packed(rows, columns, bits, block_size, symmetric) -> None:
    """Level 1 (float activations), so that only the weights' layout matters; columns need not fill a block."""
    random = np.random.default_rng(rows * 1000 + columns)
    weight, x = random.standard_normal((rows, columns), np.float32), random.standard_normal((3, columns), np.float32)
    rounded = round_blocks(weight, bits, block_size, symmetric=symmetric)
    y = run_node(
        "MatMulNBits",
        packed(rounded, pack_matmul_nbits),
        {"x": x},
        K=columns,
        N=rows,
        bits=bits,
        block_size=block_size,
        accuracy_level=1,
    )
    np.testing.assert_allclose(y, x @ rounded.dequantize().T, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(
    columns=st.integers(1, 6).map(lambda n: 16 * n),
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
)
def test_gather_block_quantized_reads_what_was_packed(columns, bits, block_size, symmetric) -> None:
    table = np.random.default_rng(columns).standard_normal((11, columns), np.float32)
    rounded = round_blocks(table, bits, block_size, symmetric=symmetric)
    ids = np.array([[3, 0, 10, 3]], np.int64)
    y = run_node(
        "GatherBlockQuantized",
        packed(rounded, pack_gather_block_quantized),
        {"ids": ids},
        bits=bits,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    np.testing.assert_allclose(y, rounded.dequantize()[ids], atol=1e-6)


def test_the_first_matching_rule_decides() -> None:
    narrow, wide = Format("blocks", bits=4, block_size=32), Format("blocks", bits=8, block_size=32)
    recipe = Recipe("mixed", (("*.q_proj.weight", wide), ("model.text_model.*", narrow)))
    assert recipe.format_of("model.text_model.layers.3.self_attn.q_proj.weight") == wide
    assert recipe.format_of("model.text_model.layers.3.mlp.up_proj.weight") == narrow
    assert recipe.format_of("lm_head.weight").kind == "float32"


def test_no_recipe_gives_the_vision_tower_one_activation_scale_per_tensor(tiny_bundle) -> None:
    """Every input of DynamicQuantizeMatMul was divided by its own row's largest magnitude before."""
    for quant in set(RECIPES) - {"fp32"}:
        graph = ir.load(tiny_bundle("tiny-idefics3", quant) / "vision_encoder.onnx").graph
        products = [node for node in graph if node.op_type == "DynamicQuantizeMatMul"]
        assert products
        for product in products:
            division = product.inputs[0].producer()
            assert division.op_type == "Div"
            assert division.inputs[1].producer().inputs[0].producer().op_type == "ReduceMax"


@pytest.mark.parametrize(
    "name", ["x/../../../../elsewhere", "..", ".hidden", "a\\b", "a\0b", "", "é", "x" * 101, "a\n"]
)
def test_a_strangers_recipe_does_not_say_where_to_write(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Recipe.from_dict({"name": name, "rules": []})


@pytest.mark.parametrize(
    "format_",
    [
        {"kind": "blocks", "bits": 4.0, "block_size": 32},
        {"kind": "blocks", "bits": "4", "block_size": 32},
        {"kind": "blocks", "bits": 4, "block_size": 33},
        {"kind": "static", "bits": 8, "low": "0", "high": 1},
        {"kind": "static", "bits": 8, "low": 0, "high": float("nan")},
        {"kind": ["rows"]},
        {"kind": "rows", "symmetric": 1},
        {"kind": "rows", "more": 1},
    ],
)
def test_a_strangers_formats_are_checked(format_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"recipe|format|blocks|low|bits"):
        Recipe.from_dict({"name": "x", "rules": [["*", format_]]})
