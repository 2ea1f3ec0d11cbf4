"""CUDA kernels as host C++: a ``.cu`` file is compiled with g++ and a fiber shim, and called on NumPy arrays.

``docs/kernels.md`` describes what this proves and what it does not.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

import yolact_plugins
from support.tools import find_tool, needs_tool

__all__ = [
    "BUILT",
    "COMPILER",
    "KERNELS",
    "SANITIZE",
    "SHIM",
    "HostKernelError",
    "HostKernels",
    "KernelRunner",
    "entry_points",
    "kernels_of",
    "needs_kernels",
    "poisoned",
    "run_kernels_by",
]

SHIM = Path(__file__).parent / "cuda_host"
KERNELS = Path(yolact_plugins.__file__).parent / "kernels"
COMPILER = find_tool("g++")
# Set for a process that was started with the sanitizer's library in front of every other.
SANITIZE = os.environ.get("YOLACT_KERNEL_SANITIZE") == "1"
# Compiled once for all processes of a run, and of the next ones; git ignores the folder.
BUILT = Path(os.environ.get("YOLACT_HOST_KERNELS", Path(__file__).parents[2] / "build" / "host-kernels"))
_POISON = 0xCD
# -ffp-contract=off: products are rounded before they are added, as NumPy does it and as the kernels ask for by name.
# `#pragma unroll` is for CUDA's compiler.
_FLAGS = ("-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-ffp-contract=off")
_FLAGS += ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
_SANITIZER_FLAGS = ("-fsanitize=address", "-fsanitize-sections=cuda_shared", "-fno-omit-frame-pointer")
_ENTRY_POINT = r'extern "C" __global__ void(?: __launch_bounds__\([^)]*\))?\s+(\w+)\(([^)]*)\)'
# The shim's state is one for all libraries of the process: the linker makes its inline variables unique.
_one_kernel_at_a_time = threading.Lock()


class HostKernelError(Exception):
    """The shim refused an operation of a kernel."""


class KernelRunner(Protocol):
    """Runner of one family's kernels on arrays of this process; see :meth:`HostKernels.__call__`."""

    def __call__(
        self, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], seed: int = 0
    ) -> None: ...


class HostKernels:
    """The kernels of one ``.cu`` file, called on arrays of this process.

    ``seed`` permutes the order in which blocks and threads run; 0 keeps the natural order. With odd seeds threads
    alternate, with even ones each warp runs as far as barriers allow.
    """

    def __init__(self, source: Path) -> None:
        self.names = list(entry_points(source))
        self._library = _load(source, self.names)

    @classmethod
    def of(cls, family: str) -> HostKernels:
        """Compile the kernels of ``yolact_plugins/kernels/<family>.cu``, once in each process.

        Raises:
            HostKernelError: They do not compile; the failure is remembered, because a property test asks again for
                every example.
        """
        outcome = _compiled(family)
        if isinstance(outcome, HostKernelError):
            raise outcome
        return outcome

    def __call__(
        self, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], seed: int = 0
    ) -> None:
        """Run a kernel to its end.

        Args:
            name: Name of the entry point.
            grid: Number of blocks in up to three dimensions.
            block: Number of threads of a block in up to three dimensions.
            arguments: Arrays are passed by address, NumPy scalars by value: their dtype has to be the parameter's.
            seed: Seed of the order of threads, see the class.

        Raises:
            HostKernelError: Some threads did not reach a barrier or a warp operation.
        """
        values = [np.array(a.ctypes.data if isinstance(a, np.ndarray) else a) for a in arguments]
        self.run_packed(name, grid, block, values, seed)

    def run_packed(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        values: Sequence[npt.NDArray[np.generic]],
        seed: int = 0,
    ) -> None:
        """Run a kernel with the raw bytes of every argument, as a driver does. Thread-safe."""
        shape = (ctypes.c_uint * 6)(*_three(grid), *_three(block))
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        if not all(shape[:3]):
            return
        launch = getattr(self._library, f"launch_{name}")
        with _one_kernel_at_a_time:
            launch.restype = ctypes.c_char_p
            launch.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
            error = launch(shape, len(values), seed, pointers)
        if error:
            raise HostKernelError(f"{name}: {error.decode()}")


_runners: list[Callable[[str], KernelRunner]] = [HostKernels.of]


def kernels_of(family: str) -> KernelRunner:
    """Return the runner of a family: its sources as host C++, or what :func:`run_kernels_by` set."""
    return _runners[-1](family)


def run_kernels_by(find: Callable[[str], KernelRunner]) -> None:
    """Let the tests of this process run their kernels elsewhere: on a GPU (:mod:`support.on_device`)."""
    _runners.append(find)


def needs_kernels() -> pytest.MarkDecorator:
    """Mark tests that call :func:`kernels_of`."""
    return needs_tool("g++") if len(_runners) == 1 else pytest.mark.skipif(False, reason="they run elsewhere")


def entry_points(source: Path) -> dict[str, tuple[bool, ...]]:
    """Return the kernels in a ``.cu`` file, and which of their parameters are addresses, without compiling it."""
    found: list[tuple[str, str]] = re.findall(_ENTRY_POINT, source.read_text())
    return {
        name: tuple("*" in parameter for parameter in parameters.split(",") if parameter.strip())
        for name, parameters in found
    }


@functools.cache
def _compiled(family: str) -> HostKernels | HostKernelError:
    try:
        return HostKernels(KERNELS / f"{family}.cu")
    except HostKernelError as error:
        return error


def poisoned(shape: int | Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of 0xCD bytes, which reveal values that a kernel did not write."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8).fill(_POISON)
    return array


def _three(counts: Sequence[int]) -> tuple[int, ...]:
    return (*counts, *(1,) * (3 - len(counts)))


def _load(source: Path, names: Sequence[str]) -> ctypes.CDLL:
    """Load a shared library with a function ``launch_<name>`` for every kernel."""
    if COMPILER is None:
        raise HostKernelError("no g++ on this machine")
    launchers = "".join(
        f'extern "C" const char* launch_{name}(const unsigned* shape, int count, unsigned seed, void** arguments) '
        f"{{ return cuda_host::launch({name}, shape, count, seed, arguments); }}\n"
        for name in names
    )
    # Found by its folder: a copy of the same source elsewhere, as of a dry run, has its library already.
    text = f'#include "cuda_host.h"\n#include "{source.name}"\n{launchers}'
    flags = _FLAGS + (_SANITIZER_FLAGS if SANITIZE else ())
    library = BUILT / f"{source.stem}-{_digest(source, text, flags)}.so"
    if not library.exists():
        _compile(COMPILER, (*flags, f"-I{SHIM}", f"-I{source.parent}"), text, library)
    return ctypes.CDLL(str(library))


def _compile(compiler: str, flags: Sequence[str], text: str, library: Path) -> None:
    """Compile a library; several processes may do this at once, because the file is renamed into place."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kernels-", dir=library.parent) as folder:
        unit, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        unit.write_text(text)
        command = [compiler, *flags, str(unit), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostKernelError(f"{' '.join(command)}\n{done.stderr}")
        made.replace(library)


def _digest(source: Path, text: str, flags: Sequence[str]) -> str:
    """Return a digest of everything that a library is built from: kernel, headers, shim, compiler and flags."""
    version = subprocess.run([COMPILER or "", "-v"], capture_output=True, text=True, check=True).stderr
    digest = hashlib.sha256(repr([text, flags, version]).encode())
    for path in sorted([source, *source.parent.glob("*.cuh"), *SHIM.glob("*.h")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]
