"""Operators for the arithmetic of a browser: the bundle's codes and scales, multiplied otherwise.

A weight stays what calibration made it, to the last bit; in float16 its scales are the same float16 numbers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from smolvlm_edge.errors import ExportError
from smolvlm_edge.export.layouts.transformersjs.editing import Editor, array_of, inputs_of, sizes_of, stem

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def unpack_blocks(model: ir.Model) -> None:
    """MatMulNBits -> DequantizeLinear and MatMul."""
    graph = Editor(model)
    for node in graph.nodes("MatMulNBits"):
        x, codes, scales, zero_points, _, bias = inputs_of(node, 6)
        name = stem(node)
        weight = _block_weight(graph, name, node, codes, scales, zero_points)
        product = graph.add(name, "MatMul", [x, weight])
        graph.replace(node.outputs[0], product if bias is None else graph.add(name, "Add", [product, bias]))
    graph.finish()


def _block_weight(
    graph: Editor, name: str, node: ir.Node, codes: ir.Value, scales: ir.Value, zero_points: Any
) -> ir.Value:
    """[K, N] as DequantizeLinear's float32: one scale for each block of neighbours along K."""
    rows, columns, bits, block = (node.attributes[key].as_int() for key in ("N", "K", "bits", "block_size"))
    blocks, middle, narrow = -(-columns // block), 2 ** (bits - 1), bits <= 4
    signed, unsigned = (ir.DataType.INT4, ir.DataType.UINT4) if narrow else (ir.DataType.INT8, ir.DataType.UINT8)

    def matrix() -> npt.NDArray[Any]:
        numbers = _unpacked(array_of(codes), bits).reshape(rows, -1)[:, :columns].T
        return numbers if zero_points is not None else numbers.astype(np.int16) - middle

    def zeros() -> npt.NDArray[Any]:
        return _unpacked(array_of(zero_points), bits).reshape(rows, -1)[:, :blocks].T

    stored = _uncast(scales)
    grid = [
        graph.computed(f"{name}.codes", signed if zero_points is None else unsigned, (columns, rows), matrix),
        graph.computed(f"{name}.scales", FLOAT16, (blocks, rows), lambda: array_of(stored).reshape(rows, blocks).T),
    ]
    grid[1] = graph.add(f"{name}.scales", "Cast", [grid[1]], to=int(FLOAT))
    if zero_points is not None:
        grid.append(graph.computed(f"{name}.zero_points", unsigned, (blocks, rows), zeros))
    return graph.add(name, "DequantizeLinear", grid, axis=0, block_size=block)


def unpack_rows(model: ir.Model) -> None:
    """DynamicQuantizeMatMul between a division and a multiplication -> DequantizeLinear and MatMul."""
    graph = Editor(model)
    for node in graph.nodes("DynamicQuantizeMatMul"):
        normalised, codes, scales = inputs_of(node, 3)
        name, x = stem(node), normalised.producer().inputs[0]
        (multiplication,) = node.outputs[0].consumers()
        weight = graph.add(name, "DequantizeLinear", [codes, scales], axis=1)
        graph.replace(multiplication.outputs[0], graph.add(name, "MatMul", [x, weight]))
    graph.finish()


def make_unsigned(model: ir.Model) -> None:
    """The same int8 codes as uint8 with a zero point: on x86 without VNNI, products of uint8 and int8 overflow.

    The runtime has a session option against that (session.x64quantprecision), which nobody sets here. In WebAssembly
    the two are equally fast.
    """
    graph = Editor(model)
    for node in graph.nodes("DynamicQuantizeMatMul"):
        x, codes, scales = inputs_of(node, 3)
        rows, columns = sizes_of(codes)

        def unsigned(codes: ir.Value = codes) -> npt.NDArray[Any]:
            return array_of(codes).view(np.uint8) ^ np.uint8(128)

        moved = graph.computed(f"{codes.name}.unsigned", ir.DataType.UINT8, (rows, columns), unsigned)
        middle = graph.constant(f"middle_{columns}", np.full(columns, 128, np.uint8))
        product = graph.add(stem(node), "DynamicQuantizeMatMul", [x, moved, scales, middle])
        graph.replace(node.outputs[0], product)
    graph.finish()


def gather_plainly(model: ir.Model) -> None:
    """GatherBlockQuantized, for which WebAssembly has no kernel -> Gather, shifts and DequantizeLinear."""
    graph = Editor(model)
    for node in graph.nodes("GatherBlockQuantized"):
        codes, input_ids, scales, zero_points = inputs_of(node, 4)
        bits, block = (node.attributes[key].as_int() for key in ("bits", "block_size"))
        hidden = sizes_of(codes)[-1] * 8 // bits
        name = stem(node)
        if zero_points is None:
            rows, blocks = sizes_of(_uncast(scales))
            middle = np.uint8(2 ** (bits - 1))
            filled = np.full((rows, blocks), middle, np.uint8)
            zeros = graph.add(f"{name}.zeros", "Gather", [graph.constant(f"{name}.zeros", filled), input_ids])
        else:
            zeros = _gathered(graph, f"{name}.zeros", zero_points, input_ids, bits, -(-hidden // block))
        rows_ = _gathered(graph, name, codes, input_ids, bits, hidden)
        grid = graph.add(f"{name}.scales", "Gather", [scales, input_ids])
        graph.replace(
            node.outputs[0], graph.add(name, "DequantizeLinear", [rows_, grid, zeros], axis=2, block_size=block)
        )
    graph.finish()


def _gathered(graph: Editor, name: str, packed: ir.Value, ids: ir.Value, bits: int, size: int) -> ir.Value:
    """Rows of a table of packed numbers, one number a byte: uint8 [batch, sequence, size]."""
    rows = graph.add(name, "Gather", [packed, ids])
    if bits == 8:
        return rows
    start, end, last = (graph.constant(f"{name}.{key}", np.array([key])) for key in (0, size, -1))
    mask = graph.constant(f"{name}.mask", np.array(2**bits - 1, np.uint8))
    parts = []
    for place in range(0, 8, bits):
        shift = graph.constant(f"{name}.shift_{place}", np.array(place, np.uint8))
        part = graph.add(f"{name}.{place}", "BitShift", [rows, shift], direction="RIGHT")
        part = graph.add(f"{name}.{place}", "BitwiseAnd", [part, mask])
        parts.append(graph.add(f"{name}.{place}", "Unsqueeze", [part, last]))
    numbers = graph.add(name, "Concat", parts, axis=-1)
    flat = graph.add(name, "Reshape", [numbers, graph.constant(f"{name}.flat", np.array([0, 0, -1]))])
    return graph.add(name, "Slice", [flat, start, end, last])


def halve(model: ir.Model) -> None:
    """Weights, arithmetic and the cache in float16; pixels, embeddings, features and logits stay float32.

    transformers.js writes image features into the embeddings and chooses among the logits, both in float32.

    Raises:
        ExportError: A weight is too large for float16.
    """
    graph = Editor(model)
    for node in graph.nodes("Cast"):  # of scales, which are float16 already
        (narrow,) = inputs_of(node, 1)
        if narrow.const_value is not None:
            node.outputs[0].replace_all_uses_with(narrow)
    for value in list(model.graph.initializers.values()):
        if value.const_value is not None and value.const_value.dtype == FLOAT:
            _halve_initializer(value, value.const_value)
    for value in [value for value in model.graph.inputs if value.dtype == FLOAT]:
        if (value.name or "").startswith("past_key_values."):
            value.type = ir.TensorType(FLOAT16)
            continue
        readers = list(value.uses())
        half = graph.add(f"/{value.name}", "Cast", [value], to=int(FLOAT16))
        for reader, index in readers:
            reader.replace_input_with(index, half)
    for index, value in enumerate(list(model.graph.outputs)):
        value.type = ir.TensorType(FLOAT16)
        if not (value.name or "").startswith("present."):
            wide = graph.add(f"/{value.name}", "Cast", [value], to=int(FLOAT))
            wide.name, wide.type, wide.shape = value.name, ir.TensorType(FLOAT), value.shape
            value.name = f"{value.name}/float16"
            model.graph.outputs[index] = wide
    graph.finish()


def _halve_initializer(value: ir.Value, tensor: Any) -> None:
    def half() -> ir.TensorProtocol:
        with np.errstate(over="ignore"):
            array = tensor.numpy().astype(np.float16)
        if not np.isfinite(array).all():
            raise ExportError(
                f"{value.name} holds numbers above 65504, which float16 has not: export with --quant int8"
            )
        return ir.Tensor(array, name=value.name)

    value.const_value = ir.LazyTensor(half, FLOAT16, ir.Shape(tensor.shape), name=value.name)
    value.type = ir.TensorType(FLOAT16)


def _uncast(scales: ir.Value) -> ir.Value:
    """The float16 scales on disk that a Cast widens."""
    producer = scales.producer()
    return scales if producer is None else inputs_of(producer, 1)[0]


def _unpacked(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """One number a byte along the last axis; the reverse of `quantize.packing.pack_codes`."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (packed[..., None] >> shifts & np.uint8(2**bits - 1)).reshape(*packed.shape[:-1], -1)
