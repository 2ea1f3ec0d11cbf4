"""CUDA's headers, which NVRTC does not include.

The folder that fits an NVRTC, and a digest of the headers that are used.

A machine may have several CUDA versions: wheels in the environment, a toolkit below ``/usr/local``, another one named
by ``CUDA_HOME``. NVRTC gets the headers of its own version. If there are none, headers of another minor version are
used, older ones first, because CUDA's minor versions are compatible. Headers of another major version are rejected,
although this package's kernels happen to compile with them.
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
    """A folder of CUDA headers.

    Attributes:
        folder: The folder for ``--include-path``.
        version: The CUDA version that the headers belong to, such as ``"12.6"``.
    """

    folder: Path
    version: str

    def digest(self, source: KernelSource) -> str:
        """Return the hexadecimal SHA-256 of every header in the folder that a source includes, directly or not.

        Includes that an ``#if`` skips count, too: two different digests may stand for the same machine code.
        """
        texts = (source.text, *source.headers.values())
        roots = {name for text in texts for name in _INCLUDE.findall(text.encode())}
        return _digest(self.folder, frozenset(roots))


def find_headers(nvrtc_version: str) -> CudaHeaders:
    """Find the headers for an NVRTC version.

    Args:
        nvrtc_version: Version of NVRTC, such as ``"12.6"``.

    Raises:
        MissingDependencyError: There are no headers of its CUDA major version; the message lists those that were found.
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
    # The nearest older minor version, else the nearest newer one; the first one found if there are several.
    of_minor, folder = min(usable, key=lambda candidate: (candidate[0] > minor, abs(candidate[0] - minor)))
    _log.info("NVRTC %s gets the headers of CUDA %d.%d in %s", nvrtc_version, major, of_minor, folder)
    return CudaHeaders(folder, f"{major}.{of_minor}")


def _candidates(nvrtc_version: str) -> Iterator[Path]:
    """Yield the folders to search: beside the loaded NVRTC, where NVIDIA's finder looks, and the usual places."""
    # An older finder searches libraries only, or is missing; the other places remain.
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
    """Return the CUDA major and minor version of the headers; None if they do not state it."""
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
        # A header that is missing here, such as <cstring>, is built into NVRTC or skipped by an #if.
        if name not in digests and path.is_file():
            content = path.read_bytes()
            digests[name] = hashlib.sha256(content).hexdigest()
            pending += _INCLUDE.findall(content)
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
