"""A compiled family of kernels: machine code for one GPU architecture, with the properties of each kernel.

The layout of the parameters is read from the machine code itself, an ELF file: section ``.nv.info.<kernel>``, records
EIATTR_KPARAM_INFO (format 4, attribute 0x17). Their twelve bytes are: index (u32), ordinal (u16), offset in the
parameter area (u16), and a word whose bits 18 and above are the size. NVIDIA does not document this; it was found by
compiling kernels with known parameters, and tests verify it for every architecture that the project compiles for.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from yolact_plugins.errors import KernelCompileError

__all__ = ["Cubin", "KernelFigures", "Parameter", "arch_name", "check_arch", "info_attributes", "kernel_parameters"]

_SECTION_PREFIX = b".nv.info."
_FORMAT_WITH_PAYLOAD, _PARAMETER_INFO = 4, 0x17


@dataclass(frozen=True)
class Parameter:
    """Position of one kernel parameter in the parameter area.

    Attributes:
        offset: Offset in bytes.
        size: Size in bytes.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class KernelFigures:
    """The assembler's report on one kernel.

    Attributes:
        registers: Number of registers per thread.
        shared_bytes: Size of the static shared memory per block, in bytes.
        stack_bytes: Size of the stack per thread in bytes; arrays that are indexed by a variable are stored there.
        spill_store_bytes: Bytes written to memory per thread because registers ran out.
        spill_load_bytes: Bytes read back from memory per thread because registers ran out.
        barriers: Number of named barriers per block.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    barriers: int


@dataclass(frozen=True)
class Cubin:
    """The machine code of one family of kernels for one architecture.

    Attributes:
        family: Name of the source without its suffix.
        arch: GPU architecture, such as ``"sm_87"``. The code runs on this compute capability and on later ones of the
            same major number.
        source_digest: Digest of the :class:`yolact_plugins.compile.sources.KernelSource`.
        options: Compiler options besides the architecture.
        nvrtc_version: Version of the compiler, such as ``"13.5"``. A driver loads code of its own CUDA major version
            and older ones.
        code: Content of the ELF file.
        figures: Figures of every kernel in the family, by kernel name.
        warnings: Warnings of the compiler, usually empty.
    """

    family: str
    arch: str
    source_digest: str
    options: tuple[str, ...]
    nvrtc_version: str
    code: bytes
    figures: Mapping[str, KernelFigures]
    warnings: str = ""

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of `code`, in hexadecimal."""
        return hashlib.sha256(self.code).hexdigest()

    @functools.cached_property
    def parameters(self) -> Mapping[str, tuple[Parameter, ...]]:
        """The parameters of each kernel in order, by kernel name."""
        return kernel_parameters(self.code)


def arch_name(compute_capability: tuple[int, int]) -> str:
    """Return the architecture's name, such as ``"sm_87"`` for ``(8, 7)``."""
    major, minor = compute_capability
    return f"sm_{major}{minor}"


def check_arch(arch: str) -> str:
    """Return `arch` if it is a valid name of an architecture.

    Raises:
        KernelCompileError: The name is invalid.
    """
    if not re.fullmatch(r"sm_[0-9]{2,3}[af]?", arch):
        raise KernelCompileError(f'"{arch}" is not a GPU architecture; write it as sm_87 for compute capability 8.7')
    return arch


def kernel_parameters(code: bytes) -> dict[str, tuple[Parameter, ...]]:
    """Read the parameters of every kernel from a cubin.

    Raises:
        KernelCompileError: The bytes are not a cubin.
    """
    found = {}
    try:
        for name, content in _sections(code):
            if name.startswith(_SECTION_PREFIX):
                records = sorted(_parameter_records(content))
                found[name[len(_SECTION_PREFIX) :].decode()] = tuple(Parameter(*record[1:]) for record in records)
    except (struct.error, ValueError, IndexError) as error:
        raise KernelCompileError(f"these {len(code)} bytes are not a cubin, or are damaged: {error}") from error
    return found


def _sections(code: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each section of a little-endian 64-bit ELF file."""
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", code, 0x3A)
    # Fields of a section header: name, type, flags, address, offset, size.
    headers = [struct.unpack_from("<IIQQQQ", code, table + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    for header in headers:
        start = names + header[0]
        yield code[start : code.index(b"\0", start)], code[header[4] : header[4] + header[5]]


def info_attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each attribute in a section ``.nv.info`` that has a length."""
    position = 0
    while position < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, position)
        position += 4
        # Others have their value, of two bytes or none, where the length would be.
        if kind == _FORMAT_WITH_PAYLOAD:
            yield attribute, info[position : position + size]
            position += size


def _parameter_records(info: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield ordinal, offset and size of each parameter, in the assembler's order."""
    for attribute, content in info_attributes(info):
        if attribute == _PARAMETER_INFO:
            _, ordinal, offset, packed = struct.unpack_from("<IHHI", content)
            yield ordinal, offset, packed >> 18
