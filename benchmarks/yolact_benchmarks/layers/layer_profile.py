"""Profile of a network: the time of each part of the *model*, from ONNX Runtime's profiler.

A kernel is named after the node that it computes, with suffixes of ONNX Runtime: ``proto_net.4_token_239`` is a
convolution of the protonet. The part of each node is read from the network's file. Kernels that only change layout or
dtype (reorder, transpose, quantise, cast) are a group of their own, because they compute nothing of the model.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolact_benchmarks.layers.network_operations import kernel_operations
from yolact_plugins.staging import scratch_folder
from yolact_runtime.backends.onnxruntime_session import (
    SessionSettings,
    end_profile,
    import_onnxruntime,
    open_cpu_session,
    single_feed,
)
from yolact_runtime.errors import BackendError
from yolact_runtime.model.manifest import InputSpec
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_parts import read_parts

__all__ = [
    "CONVERSIONS",
    "OTHER",
    "KernelTime",
    "profile_document",
    "profile_network",
    "read_kernels",
]

CONVERSIONS = "layout and type changes"
_CONVERTING = {"ReorderInput", "ReorderOutput", "Transpose", "QuantizeLinear", "DequantizeLinear", "Cast"}
_CONVERTING |= {"Reformat", "reformat", "cast", "NoOp"}  # as TensorRT and TensorRT-RTX name their layers
_CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger"}
_CONVOLUTIONS |= {"CaskConvolution", "CaskGemmConvolution", "Convolution", "correlation", "gemm"}
OTHER = "other"
"""Part of kernels that belong to no node of the network."""
_ADDED = re.compile(r"(_nchwc|_nhwc|_token_\d+)+$")
"""Suffixes that the library appends to the name of the last node of a kernel."""
_RIDGE = 10.0
"""Operations per byte above which a current CPU is limited by arithmetic and not by memory bandwidth, roughly."""
_GPU_RIDGE = 100.0
"""The same limit for a current GPU; it is used only if the measured bandwidth does not explain the time."""
_OF_BANDWIDTH = 0.5
_WARM_UP, _RUNS = 2, 9
_NUM_LAYERS = 20
_MUCH = 0.1


@dataclasses.dataclass(frozen=True)
class KernelTime:
    """One kernel of the network, as the library executes it.

    Attributes:
        name: Name of the kernel in the profile, without the suffix ``_kernel_time``.
        operator: ONNX operator or type of TensorRT layer, such as ``"Conv"``.
        precision: Dtype of its first input: ``"float"``, ``"uint8"``.
        ms: Median time over the profiled runs, milliseconds.
        bytes: Bytes read and written: inputs, parameters, outputs.
        operations: Multiplications and additions, if it is a convolution; None otherwise.
        part: Part of the model that its node belongs to.
    """

    name: str
    operator: str
    precision: str
    ms: float
    bytes: int
    operations: int | None
    part: str = OTHER

    @property
    def block(self) -> str:
        """Part of the model, or :data:`CONVERSIONS` for a change of layout or dtype."""
        return CONVERSIONS if self.operator in _CONVERTING else self.part

    def document(self) -> dict[str, Any]:
        """Return the kernel as a JSON object."""
        found = {name: value for name, value in dataclasses.asdict(self).items() if name != "part"}
        return {**found, "block": self.block, "ms": round(self.ms, 4)}


def profile_network(model: ModelFile, spec: InputSpec, num_threads: int = 0) -> list[KernelTime]:
    """Run a network under ONNX Runtime's profiler and return the time of each kernel.

    Args:
        model: File of the network.
        spec: Description of the network's input.
        num_threads: Number of threads; 0 leaves the choice to the library.

    Raises:
        BackendError: The profiler reported no kernels.
    """
    tensor = np.random.default_rng(0).normal(size=(1, 3, spec.height, spec.width)).astype(np.float32)
    with scratch_folder("profile") as folder:
        session = open_cpu_session(model.content, SessionSettings(num_threads, profile=folder / "profile"))
        feed = single_feed(session, tensor)
        for _ in range(_WARM_UP + _RUNS):
            session.run(None, feed)
        events = end_profile(session)
    kernels = read_kernels(events, _WARM_UP, kernel_operations(model), read_parts(model))
    if not kernels:
        raise BackendError(
            f"ONNX Runtime {import_onnxruntime().__version__} profiled no kernel of {model.path}; try another version"
        )
    return kernels


def read_kernels(
    events: Sequence[Mapping[str, Any]],
    num_warm_up: int,
    operations: Mapping[str, int] | None = None,
    parts: Mapping[str, str] | None = None,
) -> list[KernelTime]:
    """Return the kernels of a profile, in the order of the network.

    Args:
        events: Events of the profiler's file.
        num_warm_up: Number of runs that are not counted.
        operations: Number of operations by the name of the node; see
            :func:`~yolact_benchmarks.layers.network_operations.kernel_operations`.
        parts: Part of the model by the name of the node; see :func:`~yolact_runtime.model.network_parts.read_parts`.
    """
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            # Names generated by the library may repeat; the index in its list of kernels does not.
            runs.setdefault((event["name"], str(event["args"].get("node_index"))), []).append(event)
    return [
        _kernel(name.removesuffix("_kernel_time"), times[num_warm_up:] or times, operations or {}, parts or {})
        for (name, _), times in runs.items()
    ]


def _kernel(
    name: str, events: Sequence[Mapping[str, Any]], operations: Mapping[str, int], parts: Mapping[str, str]
) -> KernelTime:
    node = _ADDED.sub("", name)
    facts = events[0]["args"]
    sizes = [int(facts.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size")]
    inputs = facts.get("input_type_shape") or []
    operator = str(facts["op_name"])
    return KernelTime(
        name,
        operator,
        str(next(iter(inputs[0]), "")) if inputs else "",
        statistics.median(event["dur"] for event in events) / 1e3,
        sum(sizes),
        operations.get(node) if operator in _CONVOLUTIONS else None,
        parts.get(node, OTHER),
    )


def profile_document(kernels: Sequence[KernelTime], gb_per_s: float | None = None) -> dict[str, Any]:
    """Summarise a profile as a JSON object.

    It holds the blocks, the longest layers, the share of conversions, and at most three suggestions.

    Args:
        kernels: Kernels of one network.
        gb_per_s: Measured memory bandwidth of the GPU that ran them, in GB/s; None for a CPU.
    """
    total = sum(kernel.ms for kernel in kernels) or 1.0
    members: dict[str, list[KernelTime]] = {}
    for kernel in kernels:
        members.setdefault(kernel.block, []).append(kernel)
    blocks = [_block(name, some, total, gb_per_s) for name, some in members.items()]
    longest = sorted(kernels, key=lambda kernel: -kernel.ms)[:_NUM_LAYERS]
    converting = sum(kernel.ms for kernel in members.get(CONVERSIONS, [])) / total
    return {
        "runs": _RUNS,
        "total_ms": round(total, 3),
        "memory_gb_per_s": None if gb_per_s is None else round(gb_per_s, 1),
        "conversion_share": round(converting, 4),
        "blocks": blocks,
        "layers": [one.document() for one in longest],
        "suggestions": _suggestions(blocks, kernels, converting, total),
    }


def _block(name: str, kernels: Sequence[KernelTime], total: float, gb_per_s: float | None) -> dict[str, Any]:
    operations, size = sum(kernel.operations or 0 for kernel in kernels), sum(kernel.bytes for kernel in kernels)
    known = all(kernel.operations is not None for kernel in kernels if kernel.operator in _CONVOLUTIONS)
    intensity = operations / size if known and size else None
    ms = sum(kernel.ms for kernel in kernels)
    return {
        "name": name,
        "ms": round(ms, 4),
        "share": round(ms / total, 4),
        "mb": round(size / 1e6, 2),
        "operations_per_byte": None if intensity is None else round(intensity, 1),
        "bound_by": _bound(intensity, size, ms, gb_per_s),
        "precisions": sorted({kernel.precision for kernel in kernels if kernel.operator in _CONVOLUTIONS}),
    }


def _bound(intensity: float | None, size: int, ms: float, gb_per_s: float | None) -> str | None:
    """Return the roofline class.

    A block of a GPU that is slow for another reason, such as many small kernels, is bound by latency.
    """
    if intensity is None:
        return None
    if gb_per_s is None:
        return "memory" if intensity < _RIDGE else "arithmetic"
    if size / (gb_per_s * 1e6) >= _OF_BANDWIDTH * ms:
        return "memory"
    return "arithmetic" if intensity >= _GPU_RIDGE else "latency"


def _suggestions(
    blocks: Sequence[Mapping[str, Any]], kernels: Sequence[KernelTime], converting: float, total: float
) -> list[str]:
    """Return at most three suggestions, each based on a figure of this profile."""
    told = []
    if converting > _MUCH:
        told.append(
            f"{converting:.0%} of the time is spent on changes of layouts or types, such as between float and integer "
            f"parts. Compare with --precision fp32, and with an export whose search had a higher --max-drop"
        )
    single = sum(k.ms for k in kernels if k.operator in _CONVOLUTIONS and k.precision.startswith("float")) / total
    if single > _MUCH and any(k.operator in {"QLinearConv", "ConvInteger"} for k in kernels):
        told.append(f"{single:.0%} of the time is spent on convolutions left in float; report.html gives the reasons")
    largest = max((one for one in blocks if one["name"] != CONVERSIONS), key=lambda one: one["ms"], default=None)
    if largest is not None and largest["share"] > 2 * _MUCH:
        bound = f", and is bound by {largest['bound_by']}" if largest["bound_by"] else ""
        told.append(
            f"{largest['name']} takes {largest['share']:.0%}, more than any other part{bound}: a smaller --input-size, "
            f"or --prune, reduces it"
        )
    return told[:3]
