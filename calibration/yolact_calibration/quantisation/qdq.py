"""Writer of a plan into a graph: QuantizeLinear and DequantizeLinear, integer weights and, for the CPU, integer biases.

``tensorrt``: int8, symmetric, zero point 0, weights per output channel, biases in float. Scales are float16 numbers, so
a later conversion of the float remainder does not change them. ``cpu``: uint8 activations with a zero point, int8
weights per output channel, int32 biases: the form that ONNX Runtime turns into QLinearConv.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import NetworkGraph, write_part
from yolact_calibration.quantisation.qdq_placement import Dialect, Placement, place
from yolact_calibration.quantisation.ranges import Range

__all__ = ["Parts", "Rounding", "quantise", "rounding_of", "weight_scale"]

Float = npt.NDArray[np.float32]
_INT8_MAX, _UINT8_MAX = 127, 255
_INT32_MAX = 2**31 - 1
# Scale of a tensor that is always 0, and of an output channel without weights: any normal float16 number would do.
_IDLE_SCALE = 2.0**-10
_LARGEST_HALF, _SMALLEST_HALF = 65504.0, 2.0**-24


class Parts(str, Enum):
    """Tensors to round; rounding only one kind shows where accuracy is lost, but is not fast."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    BOTH = "both"


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Rounding of a tensor: ``(q - zero_point) * scale`` with q of the dialect's type.

    Attributes:
        scale: Step size, float32.
        zero_point: Integer that represents 0; it is 0 except for uint8.
    """

    scale: np.float32
    zero_point: int


def rounding_of(name: str, found: Range, dialect: Dialect) -> Rounding:
    """Return the rounding of a tensor.

    Args:
        name: Name of the tensor, for messages.
        found: Range of the values to preserve.
        dialect: Dialect of the graph.

    Raises:
        CalibrationError: The range is too large for a float16 scale.
    """
    if dialect is Dialect.TENSORRT:
        largest = max(-found.low, found.high)
        if largest / _INT8_MAX > _LARGEST_HALF:
            raise CalibrationError(
                f'"{name}" reaches {largest:.3g}, beyond every INT8 scale in float16: a value is an outlier. '
                f"Leave its layers in float, or check the checkpoint"
            )
        return Rounding(np.float32(_half_above(largest / _INT8_MAX)), 0)
    scale = np.float32((found.high - found.low) / _UINT8_MAX)
    if not scale >= np.finfo(np.float32).tiny:
        # Below the normal numbers a scale has too few digits for its steps; such values are negligible.
        return Rounding(np.float32(_IDLE_SCALE), 0)
    return Rounding(scale, int(np.clip(np.rint(-found.low / scale), 0, _UINT8_MAX)))


def weight_scale(weight: Float, dialect: Dialect) -> Float:
    """Return the ``(out,)`` float32 scales of ``weight (out, ...)``."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    scale = np.where(largest > 0, largest / _INT8_MAX, _IDLE_SCALE)
    if dialect is Dialect.TENSORRT:
        scale = np.array([_half_above(value) for value in scale])
    return scale.astype(np.float32)


def _half_above(value: float) -> float:
    """Return the next float16 that is not smaller, so that no value is clipped; for 0, the scale of an idle tensor."""
    if value == 0:
        return _IDLE_SCALE
    half = np.float16(max(value, _SMALLEST_HALF))
    return float(half if float(half) >= value else np.nextafter(half, np.float16(np.inf)))


def quantise(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    int8: Collection[str],
    dialect: Dialect,
    parts: Parts = Parts.BOTH,
) -> onnx.ModelProto:
    """Copy a float network with some convolutions in INT8.

    Args:
        model: Network as :mod:`yolact_export` writes it; not modified.
        ranges: Ranges of the tensors that :func:`~yolact_calibration.quantisation.qdq_placement.quantisable_tensors`
            names.
        int8: Names of the convolutions to quantise.
        dialect: Runtime for which the rounding is written.
        parts: Tensors to round.

    Raises:
        CalibrationError: There is no such convolution, or a tensor has no range.
    """
    graph = NetworkGraph(model)
    known = {convolution.name for convolution in graph.convolutions}
    if unknown := sorted(set(int8) - known):
        raise CalibrationError(f"the network has no convolution {', '.join(unknown[:5])}; it has {len(known)} others")
    placement = place(graph, int8, dialect) if parts is not Parts.WEIGHTS else Placement({}, frozenset())
    if missing := sorted(set(placement.tensors.values()) - set(ranges)):
        raise CalibrationError(f"there is no range for {', '.join(missing[:5])}: calibrate this network again")
    return _Writer(graph, placement, ranges, frozenset(int8), dialect, parts).write()


class _Writer:
    """Writer of one quantised copy of a graph."""

    def __init__(
        self,
        graph: NetworkGraph,
        placement: Placement,
        ranges: Mapping[str, Range],
        int8: frozenset[str],
        dialect: Dialect,
        parts: Parts,
    ) -> None:
        self._graph = graph
        self._placement = placement
        self._int8 = int8 if parts is not Parts.ACTIVATIONS else frozenset()
        self._dialect = dialect
        self._rounding = {
            name: rounding_of(name, ranges[origin], dialect) for name, origin in placement.tensors.items()
        }
        # Tensor -> part of the model that first reads its rounded value.
        self._fed: dict[str, str] = {}
        for node in graph.nodes:
            for name in node.input:
                if (node.name, name) in placement.reads:
                    self._fed.setdefault(name, graph.parts[node.name])
        # Part of the node that is being written.
        self._part: str | None = None
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        # Weight -> scales of its integer form.
        self._weights: dict[str, Float] = {}

    def write(self) -> onnx.ModelProto:
        source = self._graph.model
        self._round(source.graph.input[0].name)
        for node in self._graph.nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            self._part = self._graph.parts[node.name]
            write_part(copy, self._part)
            if node.name in self._int8:
                self._quantise_convolution(copy)
            for index, name in enumerate(node.input):
                if (node.name, name) in self._placement.reads:
                    copy.input[index] = self._rounded_name(name)
            for index, name in enumerate(node.output):
                if name in self._placement.rounded_outputs:
                    copy.output[index] = f"{name}.float"
            self._nodes.append(copy)
            for name in node.output:
                self._round(name)
        return self._assemble(source)

    def _round(self, name: str) -> None:
        """Add the pair of nodes that rounds a tensor, directly after its producer."""
        if name not in self._rounding:
            return
        rounding = self._rounding[name]
        kind = np.int8 if self._dialect is Dialect.TENSORRT else np.uint8
        scale, zero = f"{name}.scale", f"{name}.zero_point"
        self._constants[scale] = np.array(rounding.scale, np.float32)
        self._constants[zero] = np.array(rounding.zero_point, kind)
        raw = f"{name}.float" if name in self._placement.rounded_outputs else name
        self._part = self._fed.get(name, self._part)
        self._node("QuantizeLinear", f"{name}.quantize", [raw, scale, zero], f"{name}.quantized")
        rounded = [f"{name}.quantized", scale, zero]
        self._node("DequantizeLinear", f"{name}.dequantize", rounded, self._rounded_name(name))

    def _rounded_name(self, name: str) -> str:
        """Return the name of a rounded tensor; an output of the network keeps its name."""
        return name if name in self._placement.rounded_outputs else f"{name}.dequantized"

    def _quantise_convolution(self, node: onnx.NodeProto) -> None:
        data, weight = node.input[0], node.input[1]
        bias = node.input[2] if len(node.input) > 2 else None
        if self._dialect is Dialect.TENSORRT or bias is None or data not in self._rounding:
            node.input[1], _ = self._quantise_weight(weight, weight, None)
            return
        scale = self._rounding[data].scale
        values = self._graph.constant(bias)
        # A channel with tiny weights and a large bias needs coarser weights, or the bias overflows int32.
        least = np.abs(values.astype(np.float64)) / (float(scale) * _INT32_MAX * 0.5)
        fits = bool((least <= weight_scale(self._graph.constant(weight), self._dialect)).all())
        node.input[1], scales = self._quantise_weight(weight, weight if fits else f"{node.name}.weight", least)
        node.input[2] = self._quantise_bias(f"{node.name}.bias", values, scale * scales)

    def _quantise_weight(self, weight: str, name: str, least: npt.NDArray[np.float64] | None) -> tuple[str, Float]:
        """Store the integer form of a weight once under `name`; return the tensor to read and the scales."""
        output = f"{name}.dequantized"
        if name in self._weights:
            return output, self._weights[name]
        values = self._graph.constant(weight)
        scales = weight_scale(values, self._dialect)
        if least is not None:
            scales = np.maximum(scales, least).astype(np.float32)
        column = scales.reshape(-1, *[1] * (values.ndim - 1))
        self._constants[f"{name}.quantized"] = np.clip(np.rint(values / column), -_INT8_MAX, _INT8_MAX).astype(np.int8)
        self._dequantise_constant(name, scales, np.int8)
        self._weights[name] = scales
        return output, scales

    def _quantise_bias(self, name: str, values: Float, scales: Float) -> str:
        whole = np.rint(values.astype(np.float64) / scales.astype(np.float64))
        self._constants[f"{name}.quantized"] = np.clip(whole, -_INT32_MAX, _INT32_MAX).astype(np.int32)
        self._dequantise_constant(name, scales, np.int32)
        return f"{name}.dequantized"

    def _dequantise_constant(self, name: str, scales: Float, kind: type[np.signedinteger[Any]]) -> None:
        self._constants[f"{name}.scale"] = scales
        self._constants[f"{name}.zero_point"] = np.zeros(len(scales), kind)
        inputs = [f"{name}.quantized", f"{name}.scale", f"{name}.zero_point"]
        self._node("DequantizeLinear", f"{name}.dequantize", inputs, f"{name}.dequantized", axis=0)

    def _node(self, kind: str, name: str, inputs: list[str], output: str, **attributes: Any) -> None:
        node = helper.make_node(kind, inputs, [output], name=name, **attributes)
        self._nodes.append(write_part(node, self._part))

    def _assemble(self, source: onnx.ModelProto) -> onnx.ModelProto:
        model = onnx.ModelProto(ir_version=source.ir_version, producer_name=source.producer_name)
        model.opset_import.extend(source.opset_import)
        model.metadata_props.extend(source.metadata_props)
        model.graph.name = source.graph.name
        model.graph.input.extend(source.graph.input)
        model.graph.output.extend(source.graph.output)
        model.graph.node.extend(self._nodes)
        outputs = {name for node in self._nodes for name in node.output}
        model.graph.value_info.extend(info for info in source.graph.value_info if info.name in outputs)
        read = {name for node in self._nodes for name in node.input}
        for tensor in source.graph.initializer:
            if tensor.name in read:
                model.graph.initializer.append(tensor)
        model.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self._constants.items() if name in read
        )
        return model
