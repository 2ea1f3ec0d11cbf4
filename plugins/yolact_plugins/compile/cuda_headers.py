"""CUDA's own headers, which NVRTC does not bring: the folder that belongs to it, and a digest for what they determine.

Several CUDAs may lie on one machine: wheels in the environment, a toolkit below ``/usr/local``, another one that
``CUDA_HOME`` names. NVRTC gets the headers of its own version. Where there are none, those of another minor version
serve, as CUDA's minor versions are compatible: older ones rather than newer ones. Those of another major version are
refused, although the kernels of this package happen to compile with them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yolact_plugins.compile.sources import KernelSource
from yolact_plugins.driver.gpu import cuda_extra
from yolact_plugins.errors import MissingDependencyError

__all__ = ["CudaHeaders", "find_headers"]

_log = logging.getLogger(__name__)
_TOOLKITS = Path("/usr/local")
_VERSION = re.compile(rb"#[ \t]*define[ \t]+CUDART_VERSION[ \t]+(\d+)")
_VERSION_FILE, _VERSION_BYTES = "cuda_runtime_api.h", 64 * 1024
_INCLUDE = re.compile(rb"#[ \t]*include[ \t]*[<\"]([^>\"\n]+)[>\"]")


@dataclass(frozen=True)
class CudaHeaders:
    """A folder of headers.

    Attributes:
        folder: For ``--include-path``.
        version: Of the CUDA that they belong to, such as ``"12.6"``.
    """

    folder: Path
    version: str

    def digest(self, source: KernelSource) -> str:
        """SHA-256, hexadecimal, over every header of the folder that a source reaches, directly or through another.

        What an ``#if`` leaves out counts as reached: two different digests may stand for the same machine code.
        """
        texts = (source.text, *source.headers.values())
        roots = {name for text in texts for name in _INCLUDE.findall(text.encode())}
        return _digest(self.folder, frozenset(roots))


def find_headers(nvrtc_version: str) -> CudaHeaders:
    """The headers for an NVRTC.

    Args:
        nvrtc_version: Such as ``"12.6"``.

    Raises:
        MissingDependencyError: There are none of its CUDA major version; the message says which others were found.
    """
    major, minor = (int(part) for part in nvrtc_version.split("."))
    found: dict[Path, tuple[int, int] | None] = {}
    for folder in _candidates(nvrtc_version):
        if folder not in found and (folder / "cuda_fp16.h").is_file():
            found[folder] = _version(folder)
            if found[folder] == (major, minor):
                return CudaHeaders(folder, nvrtc_version)
    usable = [(version[1], folder) for folder, version in found.items() if version is not None and version[0] == major]
    if not usable:
        raise _missing(nvrtc_version, found)
    # The nearest older minor version, else the nearest newer one; of equals the first that was found.
    of_minor, folder = min(usable, key=lambda candidate: (candidate[0] > minor, abs(candidate[0] - minor)))
    _log.info("NVRTC %s gets the headers of CUDA %d.%d in %s", nvrtc_version, major, of_minor, folder)
    return CudaHeaders(folder, f"{major}.{of_minor}")


def _candidates(nvrtc_version: str) -> Iterator[Path]:
    """Where headers may be: beside the NVRTC that is loaded, where NVIDIA's finder says, and the usual places."""
    # An older finder looks for libraries only, or is missing; the other places remain.
    with contextlib.suppress(ImportError, AttributeError, RuntimeError):
        library = Path(importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("nvrtc").abs_path or "")
        if library.is_absolute():
            yield library.parent.parent / "include"
            # The wheels of CUDA 12 have a folder for each package.
            yield library.parent.parent.parent / "cuda_runtime" / "include"
    with contextlib.suppress(ImportError, AttributeError, RuntimeError):
        folder = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory("cudart")
        if folder:
            yield Path(folder)
    for entry in sys.path:
        yield from sorted(Path(entry).glob("nvidia/*/include"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable], "include")
    for name in (f"cuda-{nvrtc_version}", "cuda"):
        yield _TOOLKITS / name / "include"


def _version(folder: Path) -> tuple[int, int] | None:
    """Major and minor version of the CUDA that the headers are of; None where they do not say."""
    try:
        with (folder / _VERSION_FILE).open("rb") as file:
            match = _VERSION.search(file.read(_VERSION_BYTES))
    except OSError:
        return None
    return (int(match[1]) // 1000, int(match[1]) % 1000 // 10) if match else None


def _missing(nvrtc_version: str, found: dict[Path, tuple[int, int] | None]) -> MissingDependencyError:
    extra = cuda_extra(nvrtc_version)
    others = ", ".join(
        f"{folder} is of {'CUDA {}.{}'.format(*version) if version else 'an unknown CUDA'}"
        for folder, version in found.items()
    )
    return MissingDependencyError(
        f"nvidia-cuda-runtime{'-cu12' if extra == 'cuda12' else ''}",
        f"Compiling CUDA kernels with NVRTC {nvrtc_version} (the header cuda_fp16.h of the same CUDA major version"
        f"{f'; {others}' if others else ''})",
        extra,
    )


@functools.lru_cache(maxsize=64)
def _digest(folder: Path, roots: frozenset[bytes]) -> str:
    digests: dict[bytes, str] = {}
    pending = sorted(roots)
    while pending:
        name = pending.pop()
        path = folder / os.fsdecode(name)
        # What is not here, such as <cstring>, NVRTC has inside, or an #if leaves out.
        if name not in digests and path.is_file():
            content = path.read_bytes()
            digests[name] = hashlib.sha256(content).hexdigest()
            pending += _INCLUDE.findall(content)
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
