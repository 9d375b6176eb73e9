"""A graph of ONNX as it is written: operators in `<name>.onnx`, weights in `<name>.onnx.data`.

A matrix is written to disk as soon as its node is built, so that one matrix at a time is in memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

OPSETS = {"": 21, "com.microsoft": 1}
IR_VERSION = 10
MICROSOFT = "com.microsoft"
MICROSOFT_OPERATORS = {
    "DynamicQuantizeMatMul",
    "FastGelu",
    "GatherBlockQuantized",
    "GroupQueryAttention",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "SkipSimplifiedLayerNormalization",
}
INLINE_BYTES = 1024  # smaller tensors stand in the graph file itself
ALIGNMENT = 4096  # a tensor that starts on a page can be mapped as it lies


class OnnxWriter:
    """One graph under construction.

    Names: node `/layers.3/self_attn/o_proj/MatMulNBits`, its output `.../output_0`.
    """

    def __init__(self, folder: Path, name: str, stored: dict[bytes, tuple[str, int]]) -> None:
        """Begin a graph.

        Args:
            folder: Of the bundle.
            name: Of the graph.
            stored: Where arrays lie already, by their sha256: file and offset. Those of this graph are added.
        """
        self.folder, self.name, self._stored = folder, name, stored
        self._scopes: list[str] = []
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}
        self._data_name = f"{name}.onnx.data"
        self._data: BinaryIO = (folder / self._data_name).open("wb")

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
        value = _value(name, dtype, shape)
        self._inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, dtype: str, shape: Sequence[int | str]) -> None:
        value.name, value.type, value.shape = name, _tensor_type(dtype), ir.Shape(shape)
        self._outputs.append(value)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def node(self, name: str, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """The one output of a new operator."""
        return self.node_with_outputs(name, op_type, inputs, outputs=1, **attributes)[0]

    def node_with_outputs(
        self, name: str, op_type: str, inputs: Sequence[ir.Value | None], *, outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """The outputs of a new operator."""
        path = "/".join(["", *self._scopes, *name.split("."), op_type])
        domain = MICROSOFT if op_type in MICROSOFT_OPERATORS else ""
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=outputs, name=path)
        for i, value in enumerate(node.outputs):
            value.name = f"{path}/output_{i}"
        self._nodes.append(node)
        return node.outputs

    def constant(self, name: str, value: npt.ArrayLike) -> ir.Value:
        """A number or a few, of which every use of a name means the same."""
        return self.weight(f"constant.{name}", np.asarray(value))

    def weight(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initializer, written once under its name: small ones in the graph file, others in the data file."""
        if name not in self._initializers:
            array = np.ascontiguousarray(array).reshape(array.shape)
            tensor = ir.Tensor(array, name=name) if array.nbytes < INLINE_BYTES else self._write(name, array)
            value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._initializers[name] = value
        return self._initializers[name]

    def _write(self, name: str, array: npt.NDArray[np.generic]) -> ir.ExternalTensor:
        data = array.data.cast("B")
        digest = sha256(data).digest()
        if digest not in self._stored:
            self._data.write(bytes(-self._data.tell() % ALIGNMENT))
            self._stored[digest] = self._data_name, self._data.tell()
            self._data.write(data)
        file, offset = self._stored[digest]
        return ir.ExternalTensor(
            file,
            offset,
            array.nbytes,
            ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self.folder,
        )

    def save(self, producer_version: str) -> None:
        """Write the graph file; the builder is finished then."""
        self.close()
        ir.save(self.model(producer_version), self.folder / f"{self.name}.onnx")

    def model(self, producer_version: str) -> ir.Model:
        """What was built so far."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=OPSETS,
            name=self.name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="smol-edge", producer_version=producer_version)

    def close(self) -> None:
        """Close the weight file."""
        self._data.close()


def _tensor_type(dtype: str) -> ir.TensorType:
    return ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=_tensor_type(dtype), shape=ir.Shape(shape))
