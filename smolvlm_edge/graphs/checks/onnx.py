"""ONNX: what the exporter writes (export/targets/onnx.py), by the numbers of the fields in onnx.proto."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from smolvlm_edge.bundle import SUFFIXES, graph_files
from smolvlm_edge.graphs.checks.refusal import (
    LARGEST_SIZE,
    MAX_NODES,
    Arity,
    Refusal,
    arity,
    elements,
    read_graph,
    shown,
)
from smolvlm_edge.graphs.checks.wire import fields, integers, nested, text

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[str, Arity] = {
    "Abs": arity(1),
    "Add": arity(2),
    "Cast": arity(1, attributes="to"),
    "Concat": arity((1, 8), attributes="axis"),
    "Conv": arity((2, 3), attributes="kernel_shape strides"),
    "Div": arity(2),
    "Gather": arity(2, attributes="axis"),
    "LayerNormalization": arity(3, attributes="axis epsilon"),
    "MatMul": arity(2),
    "Max": arity(2),
    "Mul": arity(2),
    "Neg": arity(1),
    "Pad": arity((2, 4), attributes="mode"),
    "QuantizeLinear": arity(3),
    "ReduceMax": arity(2, attributes="keepdims"),
    "Reshape": arity(2),
    "SimplifiedLayerNormalization": arity(2, attributes="axis epsilon"),
    "Slice": arity((3, 5)),
    "Split": arity((1, 2), (2, 3), "axis num_outputs"),
    "Transpose": arity(1, attributes="perm"),
    "com.microsoft.DynamicQuantizeMatMul": arity(3),
    "com.microsoft.FastGelu": arity(1),
    "com.microsoft.GatherBlockQuantized": arity((3, 4), attributes="bits block_size gather_axis quantize_axis"),
    "com.microsoft.GroupQueryAttention": arity(9, 3, "num_heads kv_num_heads do_rotary scale"),
    "com.microsoft.MatMulIntegerToFloat": arity((5, 7)),
    "com.microsoft.MatMulNBits": arity((3, 6), attributes="K N bits block_size accuracy_level"),
    "com.microsoft.MultiHeadAttention": arity(3, attributes="num_heads scale"),
    "com.microsoft.QuickGelu": arity(1, attributes="alpha"),
    "com.microsoft.SkipSimplifiedLayerNormalization": arity(3, 4, "epsilon"),
}
"""Those outside of ONNX's own set with their domain in front."""
WEIGHT_AT = {
    "MatMul": 1,
    "Conv": 1,
    "com.microsoft.DynamicQuantizeMatMul": 1,
    "com.microsoft.MatMulIntegerToFloat": 1,
    "com.microsoft.MatMulNBits": 1,
    "com.microsoft.GatherBlockQuantized": 0,
}
"""The input that is a weight: two computed matrices are multiplied in an attention alone."""
DOMAINS = {"", "ai.onnx", "com.microsoft"}
BITS = {1: 32, 2: 8, 3: 8, 6: 32, 7: 64, 10: 16, 21: 4, 22: 4}
"""Of the data types of tensors: float, uint8, int8, int32, int64, float16, uint4, int4."""
INT64, EXTERNAL = 7, 1
INT64_MAX = 2**63 - 1
MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14}
"""Neither functions nor a graph for training."""
GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13, 16}
"""Neither sparse tensors nor annotations."""
NODE_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9}
ATTRIBUTE_FIELDS = {1, 2, 3, 7, 8, 13, 20}
"""A number or several; no text, no tensor and no graph within a graph."""
TENSOR_FIELDS = {1, 2, 4, 5, 7, 8, 9, 12, 13, 14}


@dataclass
class _Graph:
    """What is known so far."""

    folder: Path
    nodes: list[memoryview] = field(default_factory=list)
    constants: dict[str, list[int]] = field(default_factory=dict)
    """Shapes."""
    values: set[str] = field(default_factory=set)
    """Names that are computed or put in."""
    inputs: int = 0
    outputs: list[str] = field(default_factory=list)


def check_onnx(path: Path) -> None:
    """Refuse a graph that the exporter cannot have written.

    Raises:
        Refusal: It holds something else.
        OSError: It, or its weights, cannot be read.
    """
    graph = _Graph(path.parent)
    bodies = [nested(value) for number, value in _known(memoryview(read_graph(path)), MODEL_FIELDS) if number == 7]
    if len(bodies) != 1:
        raise Refusal("it holds no graph")
    readers: dict[int, Callable[[_Graph, memoryview], None]] = {1: _note_node, 5: _tensor, 11: _input, 12: _output}
    for number, value in _known(bodies[0], GRAPH_FIELDS):
        if number in readers:
            readers[number](graph, nested(value))
    for node in graph.nodes:
        _node(graph, node)
    if not graph.inputs or not graph.outputs:
        raise Refusal("it holds a graph without inputs or outputs")
    for name in graph.outputs:
        _require(graph, name)


def _known(message: memoryview, numbers: set[int]) -> list[tuple[int, int | memoryview]]:
    found = list(fields(message))
    if unknown := {number for number, _ in found} - numbers:
        raise Refusal(f"it holds a field {min(unknown)}")
    return found


def _note_node(graph: _Graph, node: memoryview) -> None:
    graph.nodes.append(node)
    if len(graph.nodes) > MAX_NODES:
        raise Refusal(f"it holds more than {MAX_NODES} operators")


def _input(graph: _Graph, value: memoryview) -> None:
    graph.inputs += 1
    graph.values.add(_name(value))


def _output(graph: _Graph, value: memoryview) -> None:
    graph.outputs.append(_name(value))


def _name(value_info: memoryview) -> str:
    return next((text(value) for number, value in fields(value_info) if number == 1), "")


def _node(graph: _Graph, node: memoryview) -> None:
    names: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
    told: list[memoryview] = []
    for number, value in _known(node, NODE_FIELDS):
        if number in names:
            names[number].append(text(value))
        elif number == 5:
            told.append(nested(value))
    inputs, outputs, (kind, domain) = names[1], names[2], ("".join(names[4]), "".join(names[7]))
    operator = f"{domain}.{kind}" if domain not in {"", "ai.onnx"} else kind
    if operator not in OPERATORS:
        raise Refusal(f"it holds the operator {shown(operator)}")
    attributes = dict(map(_attribute, told))
    OPERATORS[operator].check(operator, len(inputs), len(outputs), {*attributes})
    for name in filter(None, inputs):
        _require(graph, name)
    if operator in WEIGHT_AT and inputs[WEIGHT_AT[operator]] not in graph.constants:
        raise Refusal(f"it holds {operator} of two computed values")
    if operator == "com.microsoft.MatMulNBits":
        _check_blocks(graph.constants[inputs[1]], attributes)
    for name in filter(None, outputs):
        if name in graph.values or name in graph.constants:
            raise Refusal(f"it holds two values called {shown(name)}")
        graph.values.add(name)


def _require(graph: _Graph, name: str) -> None:
    if name not in graph.values and name not in graph.constants:
        raise Refusal(f"it holds an operator whose input {shown(name)} comes from nowhere")


def _attribute(attribute: memoryview) -> tuple[str, list[int]]:
    """Its name and its whole numbers."""
    name, numbers = "", []
    for number, value in _known(attribute, ATTRIBUTE_FIELDS):
        if number == 1:
            name = text(value)
        elif number in {3, 8}:
            numbers += integers(value)
    if any(abs(each) > LARGEST_SIZE for each in numbers):
        raise Refusal(f"it holds an attribute {shown(name)} of {shown(str(max(numbers, key=abs)))}")
    return name, numbers


def _check_blocks(shape: list[int], attributes: dict[str, list[int]]) -> None:
    """The kernel reads as many codes as the attributes say."""
    told = [attributes.get(name, [0])[0] for name in ("N", "K", "block_size", "bits")]
    rows, columns, block, bits = told
    if min(told) < 1 or bits not in {2, 4, 8} or block > 4096:
        raise Refusal(f"it holds MatMulNBits with N, K, block_size and bits {told}")
    if shape != [rows, -(-columns // block), block * bits // 8]:
        raise Refusal(f"it holds MatMulNBits whose codes {shape} do not fit N, K, block_size and bits {told}")


def _tensor(graph: _Graph, tensor: memoryview) -> None:
    """Its shape, that its bytes are as many, and, where it may be a shape itself, what it asks for."""
    known: dict[int, list[int | memoryview]] = {number: [] for number in TENSOR_FIELDS}
    for number, value in _known(tensor, TENSOR_FIELDS):
        known[number].append(value)
    name = "".join(map(text, known[8]))
    sizes, kind, external = (_integers(known[number]) for number in (1, 2, 14))
    if kind[-1:] not in [[each] for each in BITS]:
        raise Refusal(f"it holds the tensor {shown(name)} of type {kind}")
    count, bits = elements(sizes), BITS[kind[-1]]
    if external == [EXTERNAL]:
        entries = [{key: text(part) for key, part in fields(nested(value))} for value in known[13]]
        _check_place(graph, name, {entry.get(1, ""): entry.get(2, "") for entry in entries}, -(-count * bits // 8))
    else:
        numbers = _integers(known[5] + known[7])
        raw = b"".join(nested(value) for value in known[9])
        inside = len(numbers) * bits + 8 * (len(raw) + sum(len(nested(value)) for value in known[4]))
        if inside != -(-count * bits // 8) * 8:
            raise Refusal(f"it holds the tensor {shown(name)} with {inside // 8} bytes for {count} values")
        if kind[-1] == INT64:
            numbers += [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]
            if math.prod(max(1, abs(each)) for each in numbers if abs(each) < INT64_MAX) > LARGEST_SIZE:
                raise Refusal(f"it holds the shape {shown(str(numbers))}")
    graph.constants[name] = sizes


def _integers(values: list[int | memoryview]) -> list[int]:
    return [number for value in values for number in integers(value)]


def _check_place(graph: _Graph, name: str, place: dict[str, str], size: int) -> None:
    """In a weight file of the bundle: a token table that is the head too is stored once."""
    file = place.get("location", "")
    if file not in graph_files("onnx") or not file.endswith(SUFFIXES["onnx"][1]):
        raise Refusal(f"it holds the tensor {shown(name)} outside of the bundle")
    told = [place.get(key, "0") for key in ("offset", "length")]
    if not all(each.isascii() and each.isdigit() and len(each) < 19 for each in told):
        raise Refusal(f"it holds the tensor {shown(name)} at a place that is no number")
    offset, length = map(int, told)
    if (length or size) != size or offset + size > (graph.folder / file).stat().st_size:
        raise Refusal(f"it holds the tensor {shown(name)} beyond the end of {file}")
