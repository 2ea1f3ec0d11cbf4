"""Profile of a TensorRT engine: the time of each part of the *model*, from TensorRT's profiler and inspector.

The inspector lists the ONNX nodes that were fused into each layer. Their names, which are the names of the PyTorch
modules, are kept by engines that were built with detailed verbosity, as this project's are. The profiler measures the
time of each layer.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from yolact_benchmarks.layers.layer_profile import OTHER, KernelTime
from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.errors import BackendError
from yolact_runtime.model.network_parts import derive_parts

__all__ = ["profile_engine", "read_layers"]

_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\]")
_WARM_UP, _RUNS = 2, 9
_TYPES = {
    "Int8": ("int8", 1),
    "Half": ("float16", 2),
    "Float": ("float", 4),
    "FP16": ("float16", 2),
    "FP32": ("float", 4),
}


def profile_engine(
    backend: TensorRtBackend,
    operations: Mapping[str, int] | None = None,
    parts: Mapping[str, str] | None = None,
) -> list[KernelTime]:
    """Run an engine under TensorRT's profiler, with device buffers of its own, and return the time of each layer.

    Args:
        backend: Backend with an open engine.
        operations: Number of operations of each convolution of the network that the engine was built from, by the name
            of its ONNX node; see :func:`~yolact_benchmarks.layers.network_operations.convolution_operations`.
        parts: Part of the model for each node of that network, by the name of the node. If None, parts are derived from
            the node names in the engine.

    Raises:
        BackendError: TensorRT reported no layer.
    """
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        backend.device.make_current()
        stream = stack.enter_context(Stream(backend.device))
        context = backend.new_context()
        stack.callback(context.close)
        for tensor in backend.tensors:
            size = math.prod(tensor.shape) * tensor.dtype.itemsize
            buffer = stack.enter_context(DeviceBuffer(backend.device, size))
            buffer.fill(0, stream)
            context.bind(tensor.name, buffer.pointer)
        for _ in range(_WARM_UP):
            context.enqueue(stream)
        stream.synchronize()
        context.report_layers(lambda name, ms: times.setdefault(name, []).append(ms))
        for _ in range(_RUNS):
            context.enqueue(stream)
            stream.synchronize()
    layers = read_layers(backend.layers_json())
    known = operations or {}
    if parts is None:
        named = (node for name in times for node in _nodes(name, layers.get(name, {})))
        parts = derive_parts(dict.fromkeys(named, None))
    kernels = [
        _kernel(name, statistics.median(some), layers.get(name, {}), known, parts) for name, some in times.items()
    ]
    if not kernels:
        raise BackendError(f"{backend.name} profiled no layer of the engine")
    return kernels


def read_layers(text: str) -> dict[str, Mapping[str, Any]]:
    """Return the layers of the inspector's JSON document by name.

    An engine that was built without detailed verbosity only has a list of names; the result is then empty.
    """
    layers = json.loads(text).get("Layers", [])
    return {layer["Name"]: layer for layer in layers if isinstance(layer, Mapping) and "Name" in layer}


def _nodes(name: str, layer: Mapping[str, Any]) -> list[str]:
    """Return the names of the ONNX nodes in a layer; without details, they are the parts of the layer's name."""
    return _ONNX_LAYER.findall(str(layer.get("Metadata", ""))) or name.split(" + ")


def _kernel(
    name: str, ms: float, layer: Mapping[str, Any], operations: Mapping[str, int], parts: Mapping[str, str]
) -> KernelTime:
    """Describe one layer: its part is that of its first ONNX node; its operations are the sum over all of its nodes."""
    nodes = _nodes(name, layer)
    part = next((parts[node] for node in nodes if node in parts), OTHER)
    tensors = [*_tensors(layer, "Inputs"), *_tensors(layer, "Outputs"), *_tensors(layer, "Constants")]
    inputs = _tensors(layer, "Inputs")
    precision = inputs[0][0] if inputs else ""
    size = sum(math.prod(shape) * item for _, shape, item in tensors)
    computed = [operations[node] for node in dict.fromkeys(nodes) if node in operations]
    return KernelTime(nodes[0], str(layer.get("LayerType", "")), precision, ms, size, sum(computed) or None, part)


def _tensors(layer: Mapping[str, Any], key: str) -> list[tuple[str, tuple[int, ...], int]]:
    """Return dtype, shape, and bytes per element of each tensor; TensorRT 10 gives the dtype within the format."""
    found = []
    for tensor in layer.get(key) or []:
        if not isinstance(tensor, Mapping):
            continue
        words = str(tensor.get("Datatype") or tensor.get("Format/Datatype", ""))
        kind = next((known for name, known in _TYPES.items() if re.search(rf"\b{name}\b", words, re.IGNORECASE)), None)
        shape = tuple(int(side) for side in tensor.get("Dimensions", ()))
        found.append((kind[0] if kind else words.lower(), shape, kind[1] if kind else 0))
    return found
