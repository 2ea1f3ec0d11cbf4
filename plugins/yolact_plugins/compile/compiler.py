"""Compilation of CUDA C++ to machine code with NVRTC, for an exact architecture; needs neither a GPU nor a driver.

``python -m yolact_plugins.compile --arch sm_87 -o my.bundle`` compiles ahead of time; see
:mod:`yolact_plugins.compile.precompile`.

Arithmetic equals that of the NumPy references and of the host build of the same sources: ``a * b + c`` is not
contracted into a fused operation (``--fmad=false``; a kernel that wants one writes ``fmaf``), division and square root
follow IEEE, and denormals are kept.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from yolact_plugins.compile.cuda_headers import find_headers
from yolact_plugins.compile.sources import KernelSource
from yolact_plugins.driver.cubin import Cubin, KernelFigures, check_arch
from yolact_plugins.driver.gpu import cuda_extra
from yolact_plugins.errors import KernelCompileError, MissingDependencyError

__all__ = ["OPTIONS", "compile_cubin", "nvrtc_version", "supported_archs"]

OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "--ptxas-options=-v")
"""Options of every compilation, besides the architecture and the folder of CUDA's headers.

The last one makes the assembler report registers, memory and spills; it changes no instruction.
"""

_PURPOSE = "Compiling CUDA kernels"
_ENTRY = re.compile(r"^ptxas info\s*: Compiling entry function '([^']+)'", re.MULTILINE)
_FIGURES = {
    "registers": r"Used (\d+) registers",
    "shared_bytes": r"(\d+) bytes smem",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
    "barriers": r"used (\d+) barriers",
}


def compile_cubin(source: KernelSource, arch: str) -> Cubin:
    """Compile a family of kernels.

    Args:
        source: The family from :func:`yolact_plugins.compile.sources.read_source`.
        arch: GPU architecture, such as ``"sm_87"``.

    Raises:
        KernelCompileError: The source does not compile (the message includes the log), or this NVRTC does not support
            the architecture.
        MissingDependencyError: NVRTC, its Python binding or CUDA's headers are not installed.
    """
    nvrtc = _load_nvrtc()
    version = nvrtc_version()
    if check_arch(arch).rstrip("af") not in supported_archs():
        raise KernelCompileError(
            f"NVRTC {version} cannot compile for {arch}, only for {', '.join(supported_archs())}. "
            f"Older GPUs need an older NVRTC, newer ones a newer one: pip install the nvidia-cuda-nvrtc of that CUDA"
        )
    options = (*OPTIONS, f"--gpu-architecture={arch}", f"--include-path={find_headers(version).folder}")
    headers = [(text.encode(), name.encode()) for name, text in source.headers.items()]
    program = _check(
        nvrtc,
        "nvrtcCreateProgram",
        source.text.encode(),
        f"{source.family}.cu".encode(),
        len(headers),
        [text for text, _ in headers],
        [name for _, name in headers],
    )
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        log = _read(nvrtc, program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise KernelCompileError(
                f"NVRTC {version} cannot compile {source.family}.cu for {arch} ({status.name}):\n{log.strip()}"
            )
        code = _read(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Cubin(source.family, arch, source.digest, OPTIONS, version, code, _figures(log), _warnings(log))


def nvrtc_version() -> str:
    """Return the version of NVRTC, such as ``"13.5"``.

    Raises:
        MissingDependencyError: NVRTC or its Python binding is not installed.
    """
    nvrtc = _load_nvrtc()
    major, minor = _check(nvrtc, "nvrtcVersion")
    return f"{major}.{minor}"


def supported_archs() -> tuple[str, ...]:
    """Return the architectures that the installed NVRTC supports.

    Raises:
        MissingDependencyError: NVRTC or its Python binding is not installed.
    """
    return tuple(f"sm_{number}" for number in _check(_load_nvrtc(), "nvrtcGetSupportedArchs"))


def _load_nvrtc() -> Any:
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("cuda-bindings", _PURPOSE, cuda_extra()) from error
    try:
        # The library itself is loaded by the first call.
        nvrtc.nvrtcVersion()
    except (RuntimeError, OSError) as error:
        extra = cuda_extra()
        package = "nvidia-cuda-nvrtc-cu12" if extra == "cuda12" else "nvidia-cuda-nvrtc"
        raise MissingDependencyError(package, f"{_PURPOSE} ({error.__class__.__name__})", extra) from error
    return nvrtc


def _check(nvrtc: Any, function: str, *arguments: Any) -> Any:
    """Call NVRTC; return its one value, a tuple of several, or None."""
    status, *values = getattr(nvrtc, function)(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelCompileError(f"{function} failed: {status.name}; is libnvrtc damaged? Reinstall nvidia-cuda-nvrtc")
    if len(values) > 1:
        return tuple(values)
    return values[0] if values else None


def _read(nvrtc: Any, program: Any, what: str) -> bytes:
    # The binding fills the given bytes object in place, so nothing else may refer to it.
    content = bytes(_check(nvrtc, f"nvrtcGet{what}Size", program))
    _check(nvrtc, f"nvrtcGet{what}", program, content)
    return content


def _figures(log: str) -> dict[str, KernelFigures]:
    """Parse each kernel's figures from the assembler's report; figures that it omits are zero."""
    parts = _ENTRY.split(log)
    found = {}
    for name, report in zip(parts[1::2], parts[2::2], strict=True):
        matches = {field: re.search(pattern, report) for field, pattern in _FIGURES.items()}
        found[name] = KernelFigures(**{field: int(match.group(1)) if match else 0 for field, match in matches.items()})
    return found


def _warnings(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if line.strip() and not line.startswith("ptxas")).strip()
