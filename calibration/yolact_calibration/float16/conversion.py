"""Conversion of a graph to float16, with casts, and layers that stay in float32, for strongly typed engines.

Nothing depends on a builder's flags: each tensor's type is in the file. Sums of many small differences and coordinates
stay in float32, and so does every layer that would write *or read* values beyond float16. Inputs and outputs are
float32, or float16 without a cast if the adjacent layers compute in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from yolact_calibration.float16.magnitude import magnitudes
from yolact_calibration.quantisation.network_graph import part_of, write_part
from yolact_runtime.model.manifest import NetworkDtypes

__all__ = ["TOO_COARSE", "HalfModel", "to_float16"]

TOO_COARSE = "float16 is too coarse for it"
"""Reason of a layer that stays in float32 in every network, whatever its values."""

# Operator set in which QuantizeLinear accepts float16, and the oldest IR version that knows it.
_OPSET_HALF_QDQ, _IR_VERSION_HALF_QDQ = 19, 9
_LARGEST_HALF = 65504.0
# Images outside the calibration may have values twice as large.
_LIMIT = _LARGEST_HALF / 2
# The tanh of coefficients, whose product with prototypes decides every pixel; coordinates of deformable sampling in
# GridSample's unit, which float16 would resolve to a thirtieth of a pixel. Offsets in pixels, as in DeformConv, are
# resolved to a five-hundredth.
_SINGLE_OPERATORS = frozenset({"Tanh", "GridSample"})
_SINGLE_SUFFIXES = (".offset_pairs", ".offset_last", ".offset_scaled", ".grid", ".grid_rows")
# Inputs that are float32 in any case.
_ALWAYS_SINGLE = {"Resize": (1, 2)}
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclasses.dataclass(frozen=True)
class HalfModel:
    """Network in float16.

    Attributes:
        model: Graph of the network.
        kept_single: Reasons of the nodes that compute in float32, by name.
        num_vanished: Number of nonzero weights that float16 rounds to 0.
        dtypes: Types of its input and outputs.
        float32_outputs: Reason why its outputs are float32 although float16 was requested; None otherwise.
    """

    model: onnx.ModelProto
    kept_single: Mapping[str, str]
    num_vanished: int
    dtypes: NetworkDtypes
    float32_outputs: str | None = None


def to_float16(
    model: onnx.ModelProto,
    largest: Mapping[str, float] | None = None,
    single: Collection[str] = (),
    *,
    half_input: bool = False,
    half_outputs: bool = False,
) -> HalfModel:
    """Copy a network with float16 computation.

    Args:
        model: Network in float32, with or without Q/DQ of the ``tensorrt`` dialect; not modified.
        largest: Largest absolute values that a calibration observed, by tensor. A node stays in float32 if a value that
            it writes or reads came within a factor of two of float16's limit, or could have, as derived from the
            observed tensors. Tensors without any bound are assumed to fit; after observing the tensors of
            :func:`~yolact_calibration.float16.magnitude.tensors_to_observe` there are none.
        single: Names of additional nodes that stay in float32.
        half_input: If True, the input is float16, provided that every layer that reads it computes in float16: it would
            be rounded to the same values after the input.
        half_outputs: If True, the outputs are float16, provided that every layer that writes one computes in float16;
            otherwise all are float32, because kernels read one dtype. A tanh that writes an output computes in float16
            then: its result would be rounded to the same values after it.
    """
    largest, names = largest or {}, frozenset(single)
    outputs = frozenset(output.name for output in model.graph.output if half_outputs)
    kept = _kept_single(model, largest, names, outputs)
    # Names of the output layers that would need a cast to float16 after them.
    single_answers = [node.name for node in model.graph.node if node.name in kept and outputs & {*node.output}]
    if single_answers:
        why = f"{single_answers[0]}: {kept[single_answers[0]]}"
        return _Caster(model, _kept_single(model, largest, names, frozenset()), half_input, frozenset(), why).cast()
    return _Caster(model, kept, half_input, outputs, None).cast()


class _Caster:
    """Writer of one converted copy of a graph."""

    def __init__(
        self,
        model: onnx.ModelProto,
        kept: Mapping[str, str],
        half_input: bool,
        half_outputs: frozenset[str],
        why: str | None,
    ) -> None:
        self._source = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._kept = kept
        self._half_outputs, self._why = half_outputs, why
        self._type: dict[str, int] = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
        if half_input and not self._is_read_in_single(set(self._type)):
            self._type = dict.fromkeys(self._type, TensorProto.FLOAT16)
        self._nodes: list[onnx.NodeProto] = []
        self._dequantise: dict[str, onnx.NodeProto] = {}
        self._halves: dict[str, onnx.TensorProto] = {}
        self._cast_to: dict[tuple[str, int], str] = {}
        # Part of the node that is being written; casts belong to the part that they feed.
        self._part: str | None = None
        self._num_vanished = 0

    def cast(self) -> HalfModel:
        inputs = {info.name for info in self._source.graph.input}
        outputs = {output.name for output in self._source.graph.output}
        for node in self._source.graph.node:
            self._cast_node(node, outputs)
        dtypes = NetworkDtypes(self._dtype_of(inputs), self._dtype_of(outputs))
        # A QuantizeLinear does not count as a layer: it has the type of its input.
        rounding = {node.name for node in self._source.graph.node if node.op_type == "QuantizeLinear"}
        kept = {name: why for name, why in self._kept.items() if name not in rounding}
        return HalfModel(self._assemble(), kept, self._num_vanished, dtypes, self._why)

    def _is_read_in_single(self, inputs: set[str]) -> bool:
        """Return whether a layer reads the input in float32."""
        return any(node.name in self._kept and inputs & {*node.input} for node in self._source.graph.node)

    def _dtype_of(self, names: set[str]) -> str:
        return "float16" if all(self._type[name] == TensorProto.FLOAT16 for name in names) else "float32"

    def _cast_node(self, node: onnx.NodeProto, outputs: set[str]) -> None:
        wanted = TensorProto.FLOAT if node.name in self._kept else TensorProto.FLOAT16
        if node.op_type == "DequantizeLinear" and not outputs.intersection(node.output):
            # It is written where it is read, in the type of its reader: a cast after it would separate the two, and the
            # engine would not build an INT8 layer.
            self._dequantise[node.output[0]] = node
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self._part = part_of(node)
        for index, name in enumerate(node.input):
            if name and index not in _ALWAYS_SINGLE.get(node.op_type, ()):
                copy.input[index] = self._as(name, wanted)
        made = TensorProto.INT8 if node.op_type == "QuantizeLinear" else wanted
        for index, name in enumerate(node.output):
            if name in outputs - self._half_outputs and made == TensorProto.FLOAT16:
                copy.output[index] = f"{name}.half"
            self._type[copy.output[index]] = made
        self._nodes.append(copy)
        for name in node.output:
            if name in outputs - self._half_outputs and made == TensorProto.FLOAT16:
                self._cast_node_to(f"{name}.half", TensorProto.FLOAT, name)
                self._cast_to[name, TensorProto.FLOAT16] = f"{name}.half"

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of the tensor in the type that a node computes in; integers stay unchanged."""
        if name in self._constants:
            constant = self._constants[name]
            if constant.data_type != TensorProto.FLOAT or wanted == TensorProto.FLOAT:
                return name
            return self._half_constant(constant)
        if name in self._dequantise:
            return self._dequantised(name, wanted)
        kind = self._type[name]
        if kind == wanted or kind not in _FLOATS:
            return name
        if (name, wanted) not in self._cast_to:
            self._cast_node_to(name, wanted, f"{name}.{'single' if wanted == TensorProto.FLOAT else 'half'}")
            self._cast_to[name, wanted] = self._nodes[-1].output[0]
        return self._cast_to[name, wanted]

    def _dequantised(self, name: str, wanted: int) -> str:
        """Return the name of a DequantizeLinear's output, in the type of its reader."""
        if (name, wanted) not in self._cast_to:
            # The copy for the first reader keeps the name.
            suffix = "" if name not in self._type else ".single" if wanted == TensorProto.FLOAT else ".half"
            copy = onnx.NodeProto()
            copy.CopyFrom(self._dequantise[name])
            copy.name += suffix
            copy.output[0] += suffix
            copy.input[1] = self._as(copy.input[1], wanted)
            self._nodes.append(copy)
            self._type[copy.output[0]] = wanted
            self._cast_to[name, wanted] = copy.output[0]
        return self._cast_to[name, wanted]

    def _half_constant(self, constant: onnx.TensorProto) -> str:
        name = f"{constant.name}.half"
        if name not in self._halves:
            values = numpy_helper.to_array(constant)
            half = values.astype(np.float16)
            self._num_vanished += int(np.count_nonzero((half == 0) & (values != 0)))
            self._halves[name] = numpy_helper.from_array(half, name)
        return name

    def _cast_node_to(self, name: str, wanted: int, output: str) -> None:
        node = helper.make_node("Cast", [name], [output], name=f"{output}.cast", to=wanted)
        self._nodes.append(write_part(node, self._part))
        self._type[output] = wanted

    def _assemble(self) -> onnx.ModelProto:
        source = self._source
        has_qdq = any(node.op_type == "QuantizeLinear" for node in source.graph.node)
        model = onnx.ModelProto(ir_version=source.ir_version, producer_name=source.producer_name)
        for opset in source.opset_import:
            version = max(opset.version, _OPSET_HALF_QDQ) if has_qdq else opset.version
            model.opset_import.append(helper.make_opsetid(opset.domain, version))
        if has_qdq:
            model.ir_version = max(source.ir_version, _IR_VERSION_HALF_QDQ)
        model.metadata_props.extend(source.metadata_props)
        model.graph.name = source.graph.name
        for found, infos in (
            (model.graph.input, source.graph.input),
            (model.graph.output, source.graph.output),
            (model.graph.value_info, [info for info in source.graph.value_info if info.name in self._type]),
        ):
            found.extend(infos)
            for info in found:
                info.type.tensor_type.elem_type = self._type[info.name]
        model.graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        model.graph.initializer.extend(tensor for name, tensor in self._constants.items() if name in read)
        model.graph.initializer.extend(self._halves.values())
        return model


def _kept_single(
    model: onnx.ModelProto, largest: Mapping[str, float], single: frozenset[str], half_outputs: frozenset[str]
) -> dict[str, str]:
    """Return the reason of each node that stays in float32."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    bounds = magnitudes(model, largest)
    kept: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            # It has the type of its reader.
            continue
        written = max((bounds.get(name, 0.0) for name in node.output), default=0.0)
        read = max((bounds.get(name, 0.0) for name in _read_in_half(node, constants)), default=0.0)
        if node.name in single:
            kept[node.name] = "requested"
        elif _is_too_coarse(node, half_outputs):
            kept[node.name] = TOO_COARSE
        elif not written <= _LIMIT:
            kept[node.name] = f"its values reach {written:.3g}, beyond float16's limit of {_LARGEST_HALF:.0f}"
        elif not read <= _LIMIT:
            kept[node.name] = f"it reads values up to {read:.3g}, beyond float16's limit of {_LARGEST_HALF:.0f}"
        elif (heaviest := _largest_weight(node, constants)) > _LARGEST_HALF:
            kept[node.name] = f"a weight of {heaviest:.3g} is beyond float16"
    return kept


def _is_too_coarse(node: onnx.NodeProto, half_outputs: frozenset[str]) -> bool:
    if node.op_type == "Tanh" and node.output[0] in half_outputs:
        return False
    return node.op_type in _SINGLE_OPERATORS or node.name.endswith(_SINGLE_SUFFIXES)


def _read_in_half(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> list[str]:
    """Return the activations that a node in float16 would read in float16."""
    always = _ALWAYS_SINGLE.get(node.op_type, ())
    return [name for index, name in enumerate(node.input) if name not in constants and index not in always]


def _largest_weight(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> float:
    if node.op_type == "Reshape":
        return 0.0
    values: list[npt.NDArray[Any]] = [
        numpy_helper.to_array(constants[name])
        for index, name in enumerate(node.input)
        if name in constants and index not in _ALWAYS_SINGLE.get(node.op_type, ())
        if constants[name].data_type == TensorProto.FLOAT
    ]
    return max((float(np.abs(value).max(initial=0.0)) for value in values), default=0.0)
