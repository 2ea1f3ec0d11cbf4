"""Layers of an engine and the ONNX nodes in them, parsed from TensorRT's build log.

With detailed profiling verbosity the log lists every layer of the finished engine, with the data types of its inputs
and outputs, and the ONNX nodes that were fused into it. No GPU is needed, so a test on any machine can prove that a
convolution computes in Int8. TensorRT-RTX and TensorRT 11 write ``Datatype:``; TensorRT 10 writes it inside
``Format/Datatype:``. TensorRT-RTX's list is that of the engine file; its just-in-time compiler may still choose other
kernels of the same types on the GPU.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Convolution", "EngineLayer", "find_convolutions", "fused_with", "int8_convolutions", "parse_layers"]

_LINE = re.compile(
    r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[\s*(?P<outputs>(?:\{.*?\}[,\s]*)*)\](?:, (?P<rest>.*))?$"
)
# TensorRT separates the entries by the ASCII unit separator (0x1f), older releases by nothing. A derived name may
# follow, such as "__gemm_from_conv1x1".
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1f|\s*\[|\s*$|,|__)")
_TENSOR_START = re.compile(r"\{ Name: ")
_DATATYPE = re.compile(r"(?<!/)Datatype: (\w+)")
_FORMAT = re.compile(r"Format/Datatype: ([^}]*)")
_TYPE_WORDS = {
    "int8": "Int8",
    "uint8": "UInt8",
    "fp16": "Half",
    "half": "Half",
    "fp32": "Float",
    "float": "Float",
    "bf16": "BFloat16",
    "fp8": "FP8",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
}


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's name of the layer.
        kind: TensorRT's type of the layer, such as ``"correlation"`` (a convolution of TensorRT-RTX) or
            ``"CaskConvolution"``.
        inputs: Data type of each input in TensorRT's notation: ``"Int8"``, ``"Half"``, ``"Float"``.
        outputs: Data type of each output.
        onnx_layers: Names of the ONNX nodes that are computed in it; a node may be spread over several layers.
        constants: Data type of each constant, the weights first; empty if TensorRT does not list them.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    onnx_layers: tuple[str, ...]
    constants: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> EngineLayer:
        """Create a layer from its JSON object."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        return cls(**values)

    @property
    def is_convolution(self) -> bool:
        """Whether it multiplies and adds; layers that only prepare or finish its data do not count."""
        kind = self.kind.lower()
        if kind == "runtime_fusion":
            # A 1x1 convolution on a small feature map is a matrix product: __myl_FcAddRelu.
            return "_Fc" in self.name
        return kind == "correlation" or "conv" in kind or "gemm" in kind


@dataclass(frozen=True)
class Convolution:
    """Engine layer that computes an ONNX convolution.

    Attributes:
        name: Name of the ONNX node.
        arithmetic: Data type of the multiplication: ``"Int8"``, ``"Half"``, ``"Float"``.
        output: Data type of the layer's output.
        fused: Names of the other ONNX nodes computed in the same layer.
        layer: Name of the engine's layer.
    """

    name: str
    arithmetic: str
    output: str
    fused: tuple[str, ...]
    layer: str


def parse_layers(log: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Parse the layers of the engine, in the order of the log. Other lines are ignored.

    Args:
        log: Messages of a build with detailed profiling verbosity; a message may have several lines.
    """
    layers = []
    for message in log:
        if "LayerType: " not in message:
            continue
        for line in message.split("\n"):
            match = _LINE.match(line)
            if match is not None:
                layers.append(_layer(match))
    return tuple(layers)


def _layer(match: re.Match[str]) -> EngineLayer:
    return EngineLayer(
        name=match["name"],
        kind=match["kind"].strip(),
        inputs=_datatypes(match["inputs"]),
        outputs=_datatypes(match["outputs"]),
        onnx_layers=tuple(_ONNX_LAYER.findall((match["rest"] or "").partition("Metadata: ")[2])),
        constants=_datatypes(match["constants"] or ""),
    )


def _datatypes(tensors: str) -> tuple[str, ...]:
    starts = [match.start() for match in _TENSOR_START.finditer(tensors)]
    return tuple(_datatype(tensors[start:end]) for start, end in itertools.pairwise([*starts, len(tensors)]))


def _datatype(tensor: str) -> str:
    if plain := _DATATYPE.search(tensor):
        return plain[1]
    # "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP32"
    if combined := _FORMAT.search(tensor):
        for word in reversed(combined[1].split()):
            if word.lower() in _TYPE_WORDS:
                return _TYPE_WORDS[word.lower()]
    return "unknown"


def find_convolutions(layers: Iterable[EngineLayer], names: Collection[str]) -> dict[str, Convolution]:
    """Find the layer of each ONNX convolution. One that is in no convolution layer is left out.

    Args:
        layers: Layers of the engine.
        names: Names of the ONNX model's ``Conv`` nodes.
    """
    wanted = set(names)
    found: dict[str, Convolution] = {}
    for layer in layers:
        if not layer.is_convolution:
            continue
        for name in wanted.intersection(layer.onnx_layers) - found.keys():
            fused = tuple(other for other in layer.onnx_layers if other != name)
            output = layer.outputs[0] if layer.outputs else "unknown"
            found[name] = Convolution(name, _arithmetic(layer), output, fused, layer.name)
    return {name: found[name] for name in names if name in found}


def _arithmetic(layer: EngineLayer) -> str:
    """Return Int8 only if the data and, as far as they are listed, the weights are Int8."""
    if not layer.inputs:
        return "unknown"
    data = layer.inputs[0]
    weights = layer.constants[0] if layer.constants else data
    return data if data == weights else f"{data} x {weights}"


def int8_convolutions(layers: Iterable[EngineLayer], names: Collection[str]) -> tuple[str, ...]:
    """Return the names of the ONNX convolutions that really multiply Int8 by Int8."""
    found = find_convolutions(layers, names)
    return tuple(name for name, convolution in found.items() if convolution.arithmetic == "Int8")


def fused_with(
    layers: Iterable[EngineLayer], names: Collection[str], operators: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Find the nodes among `operators` (names of ReLU or Add nodes) that are computed in the layer of each convolution.

    A convolution's bias is fused if no other layer of the engine computes the convolution: see
    :attr:`EngineLayer.onnx_layers`.
    """
    return {
        name: tuple(other for other in convolution.fused if other in operators)
        for name, convolution in find_convolutions(layers, names).items()
    }
