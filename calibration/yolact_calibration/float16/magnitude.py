"""Bounds of the values of a network's tensors, observed by a calibration or derived.

A calibration observes the tensors that a plan may round. An engine holds other tensors in float16, too: outputs of
transpositions, concatenations, products, and DequantizeLinear. Their bounds are derived from those of their inputs;
tensors without a derivable bound are observed as well, see :func:`tensors_to_observe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

__all__ = ["magnitudes", "tensors_to_observe"]

_INT8_STEPS = 128
# Operators whose outputs lie within the range of their inputs.
_MOVERS = frozenset(
    {"Concat", "Flatten", "GlobalMaxPool", "GridSample", "Identity", "MaxPool", "Relu", "Reshape", "Split", "Transpose"}
)
_AT_MOST_ONE = frozenset({"Sigmoid", "Softmax", "Tanh"})
Bounds = Mapping[str, float]


def magnitudes(model: onnx.ModelProto, largest: Mapping[str, float]) -> dict[str, float]:
    """Compute a bound of the absolute values of every float tensor for which one is known.

    Args:
        model: Network in float32, with or without Q/DQ.
        largest: Largest absolute values that a calibration observed, by tensor; they override derived bounds.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    bounds = {name: _largest_of(tensor) for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT}
    bounds |= largest
    for node in model.graph.node:
        bound = _bound(node, bounds, constants)
        if bound is not None:
            bounds |= {name: bound for name in node.output if name and name not in largest}
    return bounds


def tensors_to_observe(model: onnx.ModelProto, observed: tuple[str, ...]) -> tuple[str, ...]:
    """List the tensors of a float network whose bounds cannot be derived from the observed ones, in the graph's order.

    Args:
        model: Network in float32, without Q/DQ.
        observed: Names of the tensors that the calibration observes anyway.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    seen = dict.fromkeys(observed, 1.0)
    bounds = {name: 1.0 for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT} | seen
    missing = [info.name for info in model.graph.input if info.name not in bounds and info.name not in constants]
    bounds |= dict.fromkeys(missing, 1.0)
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in bounds and _bound(node, bounds, constants) is None:
                missing.append(name)
            bounds[name] = 1.0
    return tuple(missing)


def _bound(node: onnx.NodeProto, bounds: Bounds, constants: Mapping[str, onnx.TensorProto]) -> float | None:
    """Return a bound of a node's outputs; None if none is known."""
    if node.op_type == "DequantizeLinear":
        return _dequantised(node, constants)
    if node.op_type in _AT_MOST_ONE:
        return 1.0
    rule = _RULES.get(node.op_type)
    if rule is None:
        return None
    # Sizes and target shapes are integers, and the scales of a Resize are not among its values.
    inputs = node.input if node.op_type not in {"Resize", "Reshape", "Split", "GridSample"} else node.input[:1]
    known = [bounds.get(name) for name in inputs if name]
    values = [value for value in known if value is not None]
    return rule(node, values) if len(values) == len(known) else None


def _dequantised(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> float | None:
    """Return the bound of a dequantised tensor, from the integers' range or from the values of a weight."""
    if node.input[1] not in constants:
        return None
    scale = np.abs(numpy_helper.to_array(constants[node.input[1]]).astype(np.float64))
    if node.input[0] not in constants:
        return float(_INT8_STEPS * scale.max(initial=0.0))
    values = np.abs(numpy_helper.to_array(constants[node.input[0]]).astype(np.float64))
    per_channel = values.reshape(scale.size, -1).max(axis=1, initial=0.0) if scale.ndim else values.max(initial=0.0)
    return float(np.max(per_channel * scale, initial=0.0))


def _resized(node: onnx.NodeProto, values: list[float]) -> float | None:
    """Return the bound of a resized tensor; cubic interpolation has none, because it overshoots."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    return values[0] if mode in {b"nearest", b"linear"} else None


def _leaky(node: onnx.NodeProto, values: list[float]) -> float:
    slope = next((float(attribute.f) for attribute in node.attribute if attribute.name == "alpha"), 0.01)
    return values[0] * max(1.0, abs(slope))


def _clipped(_: onnx.NodeProto, values: list[float]) -> float:
    """Return the larger of the two limits, if both are present."""
    return max(values[1:] if len(values) == 3 else values)


_RULES: Mapping[str, Callable[[onnx.NodeProto, list[float]], float | None]] = {
    **dict.fromkeys(_MOVERS, lambda _, values: max(values, default=0.0)),
    **dict.fromkeys(("Add", "Sub"), lambda _, values: sum(values)),
    "Mul": lambda _, values: float(np.prod(values)),
    "Clip": _clipped,
    "LeakyRelu": _leaky,
    "Resize": _resized,
}


def _largest_of(tensor: onnx.TensorProto) -> float:
    values: npt.NDArray[Any] = numpy_helper.to_array(tensor)
    return float(np.abs(values).max(initial=0.0))
