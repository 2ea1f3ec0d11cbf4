"""Float32 simulation of a float16 graph: rounded wherever an engine stores a tensor in float16.

ONNX Runtime computes float16 graphs in float32 on a CPU: between most operators nothing is rounded, and nothing
overflows, so a network that is NaN on a GPU works there. Here each tensor that is float16 in the graph passes a pair of
casts, to float16 and back, whose infinities are those of an engine. ONNX Runtime keeps such a pair if it is explicit in
a float32 graph, but not around casts that it inserted itself.

An engine may fuse a convolution with the following sum and keep the convolution's result in float32. Here it is
rounded, too: the simulation is a little too strict in that case, never too lenient.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import part_of, write_part

__all__ = ["rounded_tensors", "simulate_float16"]

# Operators whose outputs are among their inputs, so that rounding them again would change nothing.
_MOVERS = frozenset(
    {"Clip", "Concat", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Relu", "Reshape", "Split", "Transpose"}
)
# Rounding before or after them is equivalent, and after them it does not separate them from the preceding convolution.
_ABSORBED = frozenset({"Clip", "Relu"})
_ROUNDED = frozenset(
    {
        *("Add", "AveragePool", "Conv", "DeformConv", "Div", "Gemm", "GlobalAveragePool", "GridSample", "LeakyRelu"),
        *("MatMul", "Mul", "Resize", "Sigmoid", "Softmax", "Sub", "Tanh"),
    }
)
_UNROUNDED, _HALF, _ROUNDED_INPUT = ".unrounded", ".float16", ".rounded"


def simulate_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a float16 graph to a float32 graph that computes what an engine would, infinities included.

    Run it in ONNX Runtime with the default optimisation level, and with ``session.disable_quant_qdq`` if it contains
    Q/DQ. A tensor keeps its name and contains the rounded value, except for the input of a ReLU or clip that is its
    only reader: that is rounded after the ReLU or clip.

    Args:
        model: Graph with float16 tensors, as :func:`~yolact_calibration.float16.conversion.to_float16` writes it. The
            output of a DequantizeLinear is not rounded, because engines compute from the integers. Not modified.

    Returns:
        The graph; inputs and outputs that were float16 are float32, and such inputs are rounded where they are read.

    Raises:
        CalibrationError: The graph has a float16 operator whose rounding in an engine is unknown.
    """
    return _Simulator(model).write()


def rounded_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that :func:`simulate_float16` rounds in a graph that it wrote, in the order of the graph."""
    return tuple(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0].endswith(_HALF) and _cast_target(node) == TensorProto.FLOAT
    )


class _Simulator:
    """Writer of one simulated copy of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._source = model
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._half = {name for name, tensor in self._constants.items() if tensor.data_type == TensorProto.FLOAT16}
        self._half |= {info.name for info in graph.input if _is_half(info)}
        self._outputs = {output.name for output in graph.output}
        self._readers = _count_readers(graph)
        self._read_by_absorbed = {node.input[0] for node in graph.node if node.op_type in _ABSORBED}
        # Tensors that their readers round.
        self._unrounded: set[str] = set()
        # Inputs in float16, and the tensors with the rounded values that an engine reads.
        self._rounded_input: dict[str, str] = {}
        # Part of the node that is being written.
        self._part = next((part_of(node) for node in graph.node), None)
        self._nodes: list[onnx.NodeProto] = []

    def write(self) -> onnx.ModelProto:
        for info in self._source.graph.input:
            if _is_half(info) and info.name not in self._constants:
                name = self._rounded_input[info.name] = f"{info.name}{_ROUNDED_INPUT}"
                self._round(info.name, name)
                self._half.add(name)
        for node in self._source.graph.node:
            self._write_node(node)
        return self._assemble()

    def _write_node(self, node: onnx.NodeProto) -> None:
        self._part = part_of(node)
        if node.op_type == "Cast" and not node.domain:
            self._write_cast(node)
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._rounded_input.get(name, name)
        self._nodes.append(copy)
        if node.op_type == "QuantizeLinear" or not self._is_in_half(node):
            return
        self._half.update(name for name in node.output if name)
        if node.op_type == "DequantizeLinear":
            self._unrounded.update(node.output)
            return
        if node.op_type in _MOVERS and self._unrounded.isdisjoint(node.input):
            return
        for index, name in enumerate(node.output):
            if name and not self._postpone(name):
                copy.output[index] = f"{name}{_UNROUNDED}"
                self._round(copy.output[index], name)

    def _is_in_half(self, node: onnx.NodeProto) -> bool:
        """Return whether a node computes in float16.

        Raises:
            CalibrationError: It may, and its rounding in an engine is unknown.
        """
        known = not node.domain and node.op_type in _MOVERS | _ROUNDED | {"DequantizeLinear"}
        # Sizes of a Resize and similar inputs have types of their own.
        in_half = any(name in self._half for name in node.input)
        if not known and (in_half or _makes_half(node)):
            raise CalibrationError(
                f'"{node.name}" is a {node.op_type} in float16, whose rounding in an engine is unknown, so the network '
                f"cannot be judged; keep it in float32"
            )
        return in_half

    def _postpone(self, name: str) -> bool:
        """Leave the rounding to a ReLU or clip that is the tensor's only reader; return whether there is one."""
        if name not in self._read_by_absorbed or self._readers[name] > 1 or name in self._outputs:
            return False
        self._unrounded.add(name)
        return True

    def _write_cast(self, node: onnx.NodeProto) -> None:
        name, output = self._rounded_input.get(node.input[0], node.input[0]), node.output[0]
        if _cast_target(node) == TensorProto.FLOAT16:
            self._half.add(output)
            if name in self._half:
                self._copy(name, output)
            else:
                self._round(name, output)
        elif name in self._half and _cast_target(node) == TensorProto.FLOAT:
            self._copy(name, output)
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = name
            self._nodes.append(copy)

    def _round(self, name: str, output: str) -> None:
        """Add the pair of casts that rounds a float32 tensor to float16."""
        for source, target, kind in ((name, f"{output}{_HALF}", "FLOAT16"), (f"{output}{_HALF}", output, "FLOAT")):
            cast = helper.make_node(
                "Cast", [source], [target], name=f"{target}.cast", to=TensorProto.DataType.Value(kind)
            )
            self._nodes.append(write_part(cast, self._part))

    def _copy(self, name: str, output: str) -> None:
        node = helper.make_node("Identity", [name], [output], name=f"{output}.identity")
        self._nodes.append(write_part(node, self._part))

    def _assemble(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        source = self._source
        model.ir_version, model.producer_name = source.ir_version, source.producer_name
        model.opset_import.extend(source.opset_import)
        model.metadata_props.extend(source.metadata_props)
        model.graph.name = source.graph.name
        model.graph.input.extend(_in_float(info) for info in source.graph.input)
        model.graph.output.extend(_in_float(info) for info in source.graph.output)
        model.graph.node.extend(self._nodes)
        made = {name for node in self._nodes for name in node.output}
        model.graph.value_info.extend(_in_float(info) for info in source.graph.value_info if info.name in made)
        model.graph.initializer.extend(_constants_in_float(source.graph))
        return model


def _constants_in_float(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            yield numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        else:
            yield tensor


def _count_readers(graph: onnx.GraphProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in itertools.chain.from_iterable(node.input for node in graph.node):
        counts[name] = counts.get(name, 0) + 1
    return counts


def _makes_half(node: onnx.NodeProto) -> bool:
    """Return whether an attribute has or requests float16, or contains a graph, which may do either."""
    return any(
        attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
        or (attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT16)
        or (attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16)
        for attribute in node.attribute
    )


def _cast_target(node: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def _is_half(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.elem_type == TensorProto.FLOAT16)


def _in_float(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    if not _is_half(info):
        return info
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    copy.type.tensor_type.elem_type = TensorProto.FLOAT
    return copy
