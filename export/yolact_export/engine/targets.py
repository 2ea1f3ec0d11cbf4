"""The libraries that can build an engine on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from yolact_export.engine.gpus import objection_to_rtx
from yolact_export.engine.onnx_outline import read_outline
from yolact_export.engine.options import EngineOptions
from yolact_runtime.backends.cuda_driver import find_gpu
from yolact_runtime.backends.tensorrt_library import LIBRARIES, module_name
from yolact_runtime.errors import BackendUnavailableError
from yolact_runtime.model.bundle import NETWORK_ROLE, read_manifest
from yolact_runtime.reporter import Reporter

__all__ = ["available_engines", "available_targets", "has_deform_conv", "report_left_out"]


def available_targets(compute_capabilities: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the targets whose library is installed and can build here.

    TensorRT builds on the GPU that will run the engine, so without a GPU it is left out; TensorRT-RTX needs none.

    Args:
        compute_capabilities: GPUs that TensorRT-RTX builds for; empty for all.
    """
    return tuple(target for target in LIBRARIES if _can_build(target, compute_capabilities))


def available_engines() -> tuple[EngineOptions, ...]:
    """Return default options of each target of :func:`available_targets`.

    Without any, those of the first target: building it raises the error that says what to install.
    """
    return tuple(EngineOptions(target) for target in available_targets() or tuple(LIBRARIES)[:1])


def has_deform_conv(bundle: Path) -> bool:
    """Return whether the networks of a bundle hold the operator that TensorRT-RTX does not have."""
    return any(
        read_outline((bundle / name).read_bytes()).named("DeformConv")
        for name, artefact in read_manifest(bundle).artefacts.items()
        if artefact.role == NETWORK_ROLE
    )


def report_left_out(compute_capabilities: tuple[str, ...], reporter: Reporter) -> None:
    """Report why TensorRT-RTX, though it is installed, builds nothing on this machine."""
    if objection := objection_to_rtx(compute_capabilities):
        reporter.say(f"no TensorRT-RTX engine: {objection}")


def _can_build(target: str, capabilities: tuple[str, ...]) -> bool:
    try:
        if importlib.util.find_spec(module_name(target)) is None:
            return False
    except ImportError:
        return False
    if target == "rtx":
        return objection_to_rtx(capabilities) is None
    try:
        find_gpu()
    except BackendUnavailableError:
        return False
    return True
