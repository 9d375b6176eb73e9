"""OpenVINO's IR: what the exporter writes (export/targets/openvino.py), a file of operators in XML."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from smolvlm_edge.graphs.checks.refusal import (
    LARGEST_MADE,
    LARGEST_SIZE,
    MAX_NODES,
    Arity,
    Refusal,
    arity,
    elements,
    read_graph,
    shown,
)

OPERATORS: dict[str, Arity] = {
    "Add-opset1": arity(2, attributes="auto_broadcast"),
    "Assign-opset6": arity(1, attributes="variable_id"),
    "Broadcast-opset3": arity(2, attributes="mode"),
    "Concat-opset1": arity((1, 8), attributes="axis"),
    "Const-opset1": arity(0, attributes="element_type shape offset size"),
    "Convert-opset1": arity(1, attributes="destination_type"),
    "Convolution-opset1": arity(2, attributes="strides dilations pads_begin pads_end auto_pad"),
    "FakeQuantize-opset1": arity(5, attributes="levels auto_broadcast"),
    "Gather-opset8": arity(3, attributes="batch_dims"),
    "Gelu-opset7": arity(1, attributes="approximation_mode"),
    "LessEqual-opset1": arity(2, attributes="auto_broadcast"),
    "MVN-opset6": arity(2, attributes="eps eps_mode normalize_variance"),
    "MatMul-opset1": arity(2, attributes="transpose_a transpose_b"),
    "Multiply-opset1": arity(2, attributes="auto_broadcast"),
    "Negative-opset1": arity(1),
    "Pad-opset1": arity((3, 4), attributes="pad_mode"),
    "Pad-opset12": arity((3, 4), attributes="pad_mode"),
    "Parameter-opset1": arity(0, attributes="element_type shape"),
    "Power-opset1": arity(2, attributes="auto_broadcast"),
    "Range-opset4": arity(3, attributes="output_type"),
    "ReadValue-opset6": arity(1, attributes="variable_id variable_type variable_shape"),
    "ReduceMax-opset1": arity(2, attributes="keep_dims"),
    "ReduceMean-opset1": arity(2, attributes="keep_dims"),
    "Reshape-opset1": arity(2, attributes="special_zero"),
    "Result-opset1": arity(1, 0),
    "ScaledDotProductAttention-opset13": arity((3, 5), attributes="causal"),
    "Select-opset1": arity(3, attributes="auto_broadcast"),
    "ShapeOf-opset3": arity(1, attributes="output_type"),
    "Slice-opset8": arity((4, 5)),
    "Sqrt-opset1": arity(1),
    "Subtract-opset1": arity(2, attributes="auto_broadcast"),
    "Swish-opset4": arity((1, 2)),
    "Transpose-opset1": arity(2),
    "Unsqueeze-opset1": arity(2),
    "VariadicSplit-opset1": arity(3, (2, 3)),
}
"""Each with the set of operators that it is of."""
MAKERS = {"Broadcast-opset3", "Range-opset4", "Pad-opset1", "Pad-opset12", "Concat-opset1"}
"""What makes more of constants than there was."""
BITS = {"f32": 32, "f16": 16, "i64": 64, "i32": 32, "i8": 8, "u8": 8, "i4": 4, "u4": 4, "boolean": 8}
WIDEST_SHAPE = 512
"""Bytes of a constant that can be a shape."""
INT64_MAX = 2**63 - 1
ELEMENTS = {
    "net": {""},
    "layers": {"net"},
    "edges": {"net"},
    "rt_info": {"net"},
    "layer": {"layers"},
    "data": {"layer"},
    "input": {"layer"},
    "output": {"layer"},
    "port": {"input", "output"},
    "dim": {"port"},
    "edge": {"edges"},
}
"""Where each may stand; below `rt_info` of the whole, anything may."""
EDGE = ("from-layer", "from-port", "to-layer", "to-port")
DEEPEST = 16


@dataclass
class _Layer:
    """One operator."""

    operator: str
    data: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, None] = field(default_factory=dict)
    outputs: dict[str, None] = field(default_factory=dict)


@dataclass
class _Reader:
    """What expat tells, put together: operators by their numbers."""

    parser: expat.XMLParserType
    layers: dict[str, _Layer] = field(default_factory=dict)
    edges: list[dict[str, str]] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    """Of all ports."""
    path: list[str] = field(default_factory=list)
    last: _Layer = field(default_factory=lambda: _Layer(""))
    apart: bool = False
    """Within what the writer says of itself."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        path = self.path
        if tag not in {"dim", "port"}:  # most are those
            self._check_place(tag)
        path.append(tag)
        if self.apart:
            return
        if tag == "port":
            self._port(path[-2], attributes.get("id", ""))
        elif tag == "dim":
            if path[-2] != "port":
                raise Refusal("it holds a size of nothing")
            self.sizes.append("")
            self.parser.CharacterDataHandler = self.text
        elif tag == "layer":
            self._layer(attributes)
        elif tag == "data":
            self.last.data.update(attributes)
        elif tag == "edge":
            self.edges.append(attributes)

    def end(self, tag: str) -> None:
        """An element ends."""
        self.path.pop()
        if tag == "dim":
            self.parser.CharacterDataHandler = None
        elif tag == "rt_info":
            self.apart = False

    def text(self, text: str) -> None:
        """A size."""
        self.sizes[-1] += text

    def _check_place(self, tag: str) -> None:
        if len(self.path) > DEEPEST or len(self.layers) > MAX_NODES or len(self.edges) > 8 * MAX_NODES:
            raise Refusal("it holds too many operators")
        if not self.apart and (self.path or [""])[-1] not in ELEMENTS.get(tag, set()):
            raise Refusal(f"it holds the element {shown(tag)}")
        self.apart = self.apart or tag == "rt_info"

    def _layer(self, attributes: dict[str, str]) -> None:
        name, number = f"{attributes.get('type')}-{attributes.get('version')}", attributes.get("id", "")
        if name not in OPERATORS:
            raise Refusal(f"it holds the operator {shown(name)}")
        if number in self.layers:
            raise Refusal("it holds two operators of one number")
        self.last = self.layers[number] = _Layer(name)

    def _port(self, side: str, number: str) -> None:
        ports = {"input": self.last.inputs, "output": self.last.outputs}.get(side)
        if ports is None or number in ports:
            raise Refusal("it holds a port in a wrong place, or two of one number")
        ports[number] = None


def check_openvino(path: Path) -> None:
    """Refuse a graph that the exporter cannot have written.

    Raises:
        Refusal: It holds something else.
        OSError: It cannot be read.
    """
    weights = path.with_suffix(".bin")
    parser = expat.ParserCreate()
    reader = _Reader(parser)
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        parser.Parse(read_graph(path), True)
    except expat.ExpatError as error:
        raise Refusal(f"it is no XML ({error})") from None
    _check_layers(reader, weights)


def _no_doctype(*_: object) -> None:
    raise Refusal("it holds a document type")


def _check_layers(reader: _Reader, weights: Path) -> None:
    for size in {*reader.sizes}:
        _size(size, least=-1)
    kinds = {layer.operator for layer in reader.layers.values()}
    if "Parameter-opset1" not in kinds or "Result-opset1" not in kinds:
        raise Refusal("it holds a graph without inputs or outputs")
    for layer in reader.layers.values():
        OPERATORS[layer.operator].check(layer.operator, len(layer.inputs), len(layer.outputs), {*layer.data})
    sources = _sources(reader)
    with weights.open("rb") as file:
        end = weights.stat().st_size
        shapes = {}
        for number, layer in reader.layers.items():
            if layer.operator == "Const-opset1":
                shapes[number] = _constant(layer, end, file)
            elif layer.operator in {"Parameter-opset1", "ReadValue-opset6"}:
                _check_declared(layer)
    for number, layer in reader.layers.items():
        made = math.prod(shapes.get(source, 1) for source in sources[number].values())
        if layer.operator in MAKERS and made > LARGEST_MADE:
            raise Refusal(f"it holds {layer.operator} of {made} values")
        if layer.operator == "MatMul-opset1" and not _is_weight(reader, sources, number):
            raise Refusal("it holds MatMul of two computed values")


def _sources(reader: _Reader) -> dict[str, dict[str, str]]:
    """Operator -> its input ports -> the operators that they come from; each port once, and none from behind."""
    order = {number: place for place, number in enumerate(reader.layers)}
    found: dict[str, dict[str, str]] = {number: {} for number in reader.layers}
    for edge in reader.edges:
        first, out, second, port = (
            edge.get(f"{end}-{part}", "") for end in ("from", "to") for part in ("layer", "port")
        )
        if first not in order or second not in order or order[first] >= order[second]:
            raise Refusal("it holds operators in a circle, or an edge to nowhere")
        layer = reader.layers[second]
        if out not in reader.layers[first].outputs or port not in layer.inputs or port in found[second]:
            raise Refusal(f"it holds {layer.operator} with an edge to no port")
        found[second][port] = first
    for number, layer in reader.layers.items():
        if len(found[number]) != len(layer.inputs):
            raise Refusal(f"it holds {layer.operator} with an input from nowhere")
    return found


def _is_weight(reader: _Reader, sources: dict[str, dict[str, str]], product: str) -> bool:
    """Whether the second factor is made of constants alone: a matrix, decompressed."""
    second = list(reader.layers[product].inputs)[1]
    waiting = [sources[product][second]]
    seen = {*waiting}
    while waiting:
        each = waiting.pop()
        if reader.layers[each].operator in {"Parameter-opset1", "ReadValue-opset6"}:
            return False
        new = {*sources[each].values()} - seen
        waiting += new
        seen |= new
    return True


def _constant(layer: _Layer, end: int, file: object) -> int:
    """Check where it lies; what it may ask for as a shape."""
    if layer.data.keys() < {"element_type", "offset", "size"}:
        raise Refusal("it holds a constant that lies nowhere")
    type_ = layer.data["element_type"]
    if type_ not in BITS:
        raise Refusal(f"it holds a constant of type {shown(type_)}")
    shape = [_size(each) for each in layer.data.get("shape", "").split(",") if each.strip()]
    offset, size = _size(layer.data["offset"], most=INT64_MAX), _size(layer.data["size"], most=INT64_MAX)
    if size != -(-elements(shape) * BITS[type_] // 8) or offset + size > end:
        raise Refusal("it holds a constant whose size does not fit its shape or its file")
    if type_ not in {"i64", "i32"} or size > WIDEST_SHAPE:
        return 1
    file.seek(offset)  # type: ignore[attr-defined]
    data, width = file.read(size), BITS[type_] // 8  # type: ignore[attr-defined]
    numbers = [int.from_bytes(data[at : at + width], "little", signed=True) for at in range(0, size, width)]
    asked = math.prod(max(1, abs(number)) for number in numbers if abs(number) < INT64_MAX)
    if asked > LARGEST_SIZE:
        raise Refusal(f"it holds the shape {shown(str(numbers))}")
    return asked


def _check_declared(layer: _Layer) -> None:
    """The shape of an input or a state: sizes, or ? where any will do."""
    text = layer.data.get("shape", layer.data.get("variable_shape", ""))
    if layer.data.get("element_type", layer.data.get("variable_type")) not in BITS:
        raise Refusal("it holds an input of an unknown type")
    elements([_size(each) for each in text.split(",") if each.strip() not in {"", "?"}])


def _size(text: str, least: int = 0, most: int = LARGEST_SIZE) -> int:
    text = text.strip()
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise Refusal(f"it holds the size {shown(text)}")
    return int(text)
