"""Changing a graph: nodes are added, values replaced; what nobody reads any more is dropped at the end."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

MICROSOFT, CONTRIBUTED = "com.microsoft", {"DynamicQuantizeMatMul"}


class Editor:
    """One graph under change."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph

    def nodes(self, op_type: str) -> list[ir.Node]:
        """All nodes of an operator."""
        return [node for node in self.graph if node.op_type == op_type]

    def add(self, name: str, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """A node with one output; the output. Nodes are named as in the bundle: `/layers.3/mlp/MatMul`."""
        domain = MICROSOFT if op_type in CONTRIBUTED else ""
        node = ir.node(op_type, inputs, attributes, domain=domain, name=f"{name}/{op_type}")
        (output,) = node.outputs
        output.name = f"{node.name}/output_0"
        self.graph.append(node)
        return output

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initializer, one for each name."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        return self.initializer(ir.Tensor(array, name=name))

    def computed(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], array: Callable[[], npt.NDArray[np.generic]]
    ) -> ir.Value:
        """An initializer whose values are made when it is written, so that one matrix at a time is in memory."""

        def tensor() -> ir.TensorProtocol:
            return ir.Tensor(array().astype(dtype.numpy()), dtype=dtype, name=name)

        return self.initializer(ir.LazyTensor(tensor, dtype, ir.Shape(shape), name=name))

    def initializer(self, tensor: Any) -> ir.Value:
        """A tensor as a value of the graph."""
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let everything that reads a value read another one; an output of the graph keeps its name and type."""
        if old.is_graph_output():
            new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, f"{old.name}/replaced"
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def finish(self) -> None:
        """Drop what nobody reads and bring the nodes into an order in which they can run."""
        RemoveUnusedNodesPass()(self.model)
        self.graph.sort()


def inputs_of(node: ir.Node, count: int) -> list[Any]:
    """Its first inputs, None where one is left out."""
    return [*node.inputs, *[None] * count][:count]


def stem(node: ir.Node) -> str:
    """Its name without the operator."""
    return (node.name or "").removesuffix(f"/{node.op_type}")


def sizes_of(value: ir.Value) -> list[int]:
    """The shape of an initializer."""
    return list(array_of(value).shape)


def array_of(value: ir.Value) -> npt.NDArray[Any]:
    """The numbers of an initializer."""
    assert value.const_value is not None, f"{value.name} is no initializer"
    return value.const_value.numpy()


def typed(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """An input or output."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
