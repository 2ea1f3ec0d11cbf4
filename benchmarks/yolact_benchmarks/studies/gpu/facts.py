"""Stage ``facts``: the machine and its software, whether the other stages will load, and the compiled kernels."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from yolact_benchmarks.studies.gpu.stage_options import open_device, stage_parser
from yolact_plugins.compile import compiler
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.sources import families, read_source

__all__ = ["main"]

_PACKAGES = (
    *("numpy", "torch", "onnx", "onnxruntime", "opencv-python-headless", "tensorrt", "tensorrt-rtx"),
    *("cuda-bindings", "cuda-pathfinder", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"),
    *("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12", "pytest", "pytest-xdist", "hypothesis"),
)
_TOOLS = ("nvidia-smi", "compute-sanitizer", "ncu", "nvcc", "nvdisasm", "g++")
_MODULES = (
    "yolact_benchmarks.studies.gpu.frames",
    "yolact_benchmarks.studies.gpu.torch_network",
    "yolact_export.checkpoint.checkpoint",
    "cuda.bindings.nvrtc",
    "pytest",
    "hypothesis",
    "support.on_device",
)
_QUERY = (
    "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,"
    "pcie.link.gen.current,pcie.link.width.current,compute_cap,mig.mode.current"
)


def main(arguments: list[str] | None = None) -> int:
    """Write a row for each kind of fact, so that a late failure loses nothing, and return the exit status."""
    rows = stage_parser("facts", __doc__).parse_args(arguments).rows
    rows.write(python=sys.version, executable=sys.executable, machine=platform.machine(), cpus=os.cpu_count())
    rows.write(packages={name: _version(name) for name in _PACKAGES})
    rows.write(tools={name: shutil.which(name) for name in _TOOLS}, nvidia_smi=_ask_nvidia_smi())
    with open_device() as device:
        rows.write(
            gpu=device.name,
            arch=device.arch,
            cuda=device.driver.gpu.cuda_version,
            integrated=device.integrated,
            multiprocessors=device.num_multiprocessors,
        )
        arch = device.arch
    rows.write(nvrtc=compiler.nvrtc_version(), archs=compiler.supported_archs())
    for family in families():
        # The cubin is cached, so that no later stage compiles it again.
        cubin = CubinCache().get(read_source(family), arch)
        kernels = {name: vars(figures) for name, figures in cubin.figures.items()}
        rows.write(family=family, kernels=kernels, warnings=cubin.warnings)
    # This comes last, because importing PyTorch is slow if its files are not in the page cache.
    rows.write(imports={name: _import(name) for name in _MODULES})
    return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import(module: str) -> str:
    """Return "ok" or the error; a library that was built for another machine may raise anything."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def _ask_nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv"]
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    return str(done.stdout or done.stderr)


if __name__ == "__main__":
    sys.exit(main())
