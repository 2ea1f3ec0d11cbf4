"""Execution of decoded kernels on host memory, with instruction counts, by ``executor/warps.cpp``."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.instructions.decoding import KINDS, MODIFIERS, OPCODES, SPECIAL_REGISTERS, Operand
from yolact_benchmarks.studies.instructions.machine_code import MachineCode

__all__ = ["Counts", "ExecutionError", "execute"]

_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-march=native", "-ffp-contract=off", "-frounding-math", "-Wall")
_BANKS, _BANK_BYTES = 8, 1 << 16
# Offsets in bank 0 of the sizes of the block and of the grid: at its beginning, and from sm_100 on shortly before the
# parameters.
_BEHIND_SIZES, _SIZES_AT = 0x380, ((0, 12), (0x360, 0x370))
_FIELDS = ("kind", "reg", "negative", "absolute", "inverted", "part", "value", "bank", "scale", "wide", "ureg", "uwide")
_OPERAND = np.dtype([(name, np.uint32 if name in {"value", "bank"} else np.int32) for name in _FIELDS])
_INSTRUCTION = np.dtype(
    [
        ("modifiers", np.uint64),
        *((name, np.int32) for name in ("opcode", "target", "num_predicates", "num_sources")),
        ("guard", _OPERAND),
        ("dest", _OPERAND),
        ("predicates", _OPERAND, 2),
        ("sources", _OPERAND, 7),
    ]
)


class ExecutionError(Exception):
    """The kernel uses an unknown feature, or does something that is not allowed."""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_void_p),
        ("num_instructions", ctypes.c_int32),
        ("shared_bytes", ctypes.c_int32),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("banks", ctypes.c_void_p * _BANKS),
        ("bank_bytes", ctypes.c_int32 * _BANKS),
        ("num_ranges", ctypes.c_int32),
        ("ranges", ctypes.c_void_p),
    )


@dataclass
class Counts:
    """Counts of one launch.

    Attributes:
        of_instructions: Number of times that each instruction was issued, ``(n,)`` uint64.
        warp_instructions: Number of issued instructions: one for a warp, whatever the number of its lanes, and one more
            for each divergent group. An instruction whose predicate is false in every lane counts, as it does on a GPU.
        most_of_a_warp: Largest number of instructions that one warp issues.
        most_of_a_block: Largest number of instructions that the warps of one block issue together.
        warps: Number of warps that were started.
        global_requests: Number of loads and stores of global memory that are not wholly predicated off, without
            atomics.
        global_sectors: Number of distinct 32-byte sectors that each request touches, summed over the requests.
        global_bytes: Number of bytes that all lanes of the requests access.
        shared_requests: Number of loads and stores of shared memory.
        atomics: Number of atomic operations of warps.
    """

    of_instructions: npt.NDArray[np.uint64]
    warp_instructions: int = 0
    most_of_a_warp: int = 0
    most_of_a_block: int = 0
    warps: int = 0
    global_requests: int = 0
    global_sectors: int = 0
    global_bytes: int = 0
    shared_requests: int = 0
    atomics: int = 0


_COUNTERS = tuple(name for name in Counts.__dataclass_fields__ if name != "of_instructions")


def execute(
    kernel: MachineCode,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[tuple[int, bytes]],
    memory: Sequence[tuple[int, int]],
    dynamic_shared_bytes: int = 0,
) -> Counts:
    """Run a kernel to its end and return its counts.

    Args:
        kernel: Machine code of the kernel.
        grid: Number of blocks in each of three dimensions.
        block: Number of threads of a block in each of three dimensions.
        arguments: Offset in the parameter area, and content, of each argument. Addresses are those of this process.
        memory: Address and size in bytes of everything that the kernel may access.
        dynamic_shared_bytes: Size of dynamic shared memory, in addition to the static one, bytes.

    Raises:
        ExecutionError: The kernel uses an unknown feature, or accesses memory that it may not.
    """
    if kernel.packed is None:
        kernel.packed = _packed(kernel)
    code = kernel.packed
    bank = bytearray(_BANK_BYTES)
    for start, counts in zip(_SIZES_AT[kernel.parameter_offset >= _BEHIND_SIZES], (block, grid), strict=True):
        bank[start : start + 12] = np.array(counts, np.uint32).tobytes()
    for offset, content in arguments:
        at = kernel.parameter_offset + offset
        bank[at : at + len(content)] = content
    banks = {**kernel.constants, 0: bytes(bank)}
    launch = _Launch(code.ctypes.data, len(code), kernel.shared_bytes + dynamic_shared_bytes)
    launch.grid, launch.block = (ctypes.c_uint32 * 3)(*grid), (ctypes.c_uint32 * 3)(*block)
    kept = {number: ctypes.create_string_buffer(content, len(content)) for number, content in banks.items()}
    for number, buffer in kept.items():
        launch.banks[number], launch.bank_bytes[number] = ctypes.addressof(buffer), len(buffer)
    ranges = np.array([(start, start + size) for start, size in memory], np.uint64)
    launch.num_ranges, launch.ranges = len(ranges), ranges.ctypes.data
    of_instructions, counters = np.zeros(len(code), np.uint64), (ctypes.c_uint64 * len(_COUNTERS))()
    error = _library().run_kernel(ctypes.byref(launch), ctypes.c_void_p(of_instructions.ctypes.data), counters)
    if error:
        raise ExecutionError(_explain(error.decode(), kernel))
    return Counts(of_instructions, *map(int, counters))


def _explain(error: str, kernel: MachineCode) -> str:
    index = int(error.partition("/*")[2].partition("*/")[0], 16) // 16
    return f"{error}: {kernel.instructions[index].problem or kernel.texts[index]}"


def _packed(kernel: MachineCode) -> npt.NDArray[Any]:
    opcodes = {name: i for i, name in enumerate(OPCODES)}
    bits = {name: 1 << i for i, name in enumerate(MODIFIERS)}
    code = np.zeros(len(kernel.instructions), _INSTRUCTION)
    for i, it in enumerate(kernel.instructions):
        row = code[i]
        row["modifiers"] = sum(bits[name] for name in it.modifiers)
        row["opcode"], row["target"] = opcodes[it.opcode], kernel.targets.get(i, -1)
        row["num_predicates"], row["num_sources"] = len(it.predicates), len(it.sources)
        row["guard"], row["dest"] = _numbers(it.guard), _numbers(it.dest)
        for name, operands in (("predicates", it.predicates), ("sources", it.sources)):
            for j, operand in enumerate(operands):
                row[name][j] = _numbers(operand)
    return code


def _numbers(operand: Operand) -> tuple[int, ...]:
    kind = KINDS.index(operand.kind)
    return (kind, *(int(getattr(operand, name)) for name in _FIELDS[1:]))


@functools.cache
def _library() -> Any:
    """Compile and load ``warps.cpp``, with the names of ``decoding.py`` as ``names.h``."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        (Path(folder) / "names.h").write_text(_names())
        made = Path(folder) / "warps.so"
        source = Path(__file__).with_name("executor") / "warps.cpp"
        done = subprocess.run(
            ["g++", *_FLAGS, f"-I{folder}", str(source), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ExecutionError(f"executor/warps.cpp does not compile:\n{done.stderr}")
        library = ctypes.CDLL(str(made))
    library.run_kernel.restype = ctypes.c_char_p
    library.run_kernel.argtypes = [ctypes.c_void_p] * 3
    return library


def _names() -> str:
    lines = ["#pragma once", "#include <algorithm>", "#include <cstdint>"]
    if len(MODIFIERS) > 64:
        lines.append("#error too many modifiers")
    for prefix, names in (("O_", OPCODES), ("K_", KINDS)):
        lines.append("enum {" + ", ".join(f"{prefix}{name}" for name in names) + "};")
    lines.append("enum {" + ", ".join(name.replace(".", "_") for name in SPECIAL_REGISTERS) + "};")
    lines += [f"constexpr std::uint64_t M_{name} = 1ull << {i};" for i, name in enumerate(MODIFIERS)]
    return "\n".join(lines) + "\n"
