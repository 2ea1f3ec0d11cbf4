"""Options of an engine build."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from yolact_export.errors import UsageError
from yolact_runtime.backends.tensorrt_library import module_name
from yolact_runtime.option_numbers import MAX_BYTES, check_most, keep_numbers, shown_number

__all__ = ["EngineOptions"]

_MAX_LEVEL = 5
_MAX_BATCH = 1024


@dataclass(frozen=True)
class EngineOptions:
    """Options of an engine build. The precision is not one of them: the ONNX file determines it.

    Attributes:
        target: Kind of engine: ``"tensorrt"`` for the GPU of this machine, ``"rtx"`` for RTX GPUs, on any machine.
        workspace_bytes: Maximum scratch memory of a layer on the GPU in bytes; None leaves it to TensorRT (all memory).
        optimisation_level: Level from 0 (quick build) to 5 (most kernels tried); None leaves it to TensorRT (3).
        compute_capabilities: GPUs to build for, such as ``("8.6", "8.9")``, RTX only; empty for all from 8.0 on that
            the builder supports.
        version_compatible: If True, newer releases can load the engine, too, with this release's lean runtime; TensorRT
            only.
        hardware_compatible: If True, any GPU from Ampere on can load the engine; TensorRT only. Slower; not on a
            Jetson.
        memory_limit_bytes: Maximum host memory of the build in bytes; None for most of what is free when it starts.
        tf32: If True, convolutions and matrix products of float32 tensors may round their inputs to ten bits of
            mantissa: faster, but no longer exact.
        group_depthwise: If True, depthwise convolutions in INT8 are built as groups of several channels, RTX only; see
            :mod:`yolact_export.engine.depthwise`. If False, they are built as in the file.
        max_batch: Maximum batch of a network with a dynamic one; it is tuned for a batch of one.

    Raises:
        UsageError: An option is out of range, or options contradict each other.
    """

    target: str = "tensorrt"
    workspace_bytes: int | None = None
    optimisation_level: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: bool = False
    memory_limit_bytes: int | None = None
    tf32: bool = False
    group_depthwise: bool = True
    max_batch: int = 4

    def __post_init__(self) -> None:
        module_name(self.target)
        keep_numbers(self, ("workspace_bytes", "memory_limit_bytes", "optimisation_level", "max_batch"))
        for name, words in (("workspace_bytes", "workspace"), ("memory_limit_bytes", "memory limit")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: the {words} must be positive, found {shown_number(value)}")
            check_most(name, value, MAX_BYTES)
        if self.optimisation_level is not None and not 0 <= self.optimisation_level <= _MAX_LEVEL:
            raise UsageError(
                f"optimisation_level must be from 0 to {_MAX_LEVEL}, found {shown_number(self.optimisation_level)}"
            )
        if self.max_batch < 1:
            raise UsageError(f"max_batch must be 1 or more, found {shown_number(self.max_batch)}")
        check_most("max_batch", self.max_batch, _MAX_BATCH)
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", capability):
                raise UsageError(f'compute_capabilities must be numbers such as 8.6; found "{capability}"')
        if self.target == "rtx" and (self.version_compatible or self.hardware_compatible):
            raise UsageError(
                "version and hardware compatibility are for the target tensorrt; an RTX engine runs on the compute "
                "capabilities that it is built for: --compute-capability 8.6,8.9"
            )
        if self.target == "tensorrt" and self.compute_capabilities:
            raise UsageError(
                "TensorRT builds for the GPU of the machine it runs on; compute capabilities are for --target rtx. "
                "Build on the machine that will run the engine, or use --hardware-compatible"
            )

    def as_facts(self) -> dict[str, str]:
        """Return the options as text for an engine's record; options left to TensorRT are ``"default"``."""
        return {
            "workspace_bytes": "default" if self.workspace_bytes is None else str(self.workspace_bytes),
            "optimisation_level": "default" if self.optimisation_level is None else str(self.optimisation_level),
            "version_compatible": "yes" if self.version_compatible else "no",
            "hardware_compatible": "yes" if self.hardware_compatible else "no",
            "tf32": "yes" if self.tf32 else "no",
        }

    def to_document(self) -> dict[str, Any]:
        """Return the options as a JSON object."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> EngineOptions:
        """Create options from the result of :meth:`to_document`."""
        known = {field.name: document[field.name] for field in fields(cls)}
        return cls(**{**known, "compute_capabilities": tuple(known["compute_capabilities"])})
