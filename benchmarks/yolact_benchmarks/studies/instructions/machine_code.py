"""Kernels of a cubin as decoded instructions, with the constants and the sizes that a launch needs."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.instructions.decoding import Decoded, decode
from yolact_plugins.driver.cubin import info_attributes

__all__ = ["MachineCode", "disassemble", "find_disassembler", "parse_listing", "read_kernels"]

PACKAGE = "nvidia-cuda-nvdisasm"
_SECTION = re.compile(r"\.section\s+\.text\.([^,\s]+)")
_LABEL = re.compile(r"(\S+):$")
_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;?\s*(?:/\*.*\*/)?$")
_PARAMETER_BANK = 0x0A
_NO_BITS = 8


@dataclass
class MachineCode:
    """One kernel.

    Attributes:
        instructions: Decoded instructions in the order of their addresses, 16 bytes apart.
        texts: Text of each instruction, as written by the disassembler.
        targets: Index of the target instruction by the index of the jump.
        parameter_offset: Offset of the parameters in constant bank 0, bytes.
        constants: Content of the other constant banks, by number.
        shared_bytes: Size of static shared memory, including what the architecture reserves before it, bytes.
        packed: Array for the executor, made when the kernel is executed for the first time.
    """

    instructions: list[Decoded]
    texts: list[str]
    targets: dict[int, int]
    parameter_offset: int = 0
    constants: dict[int, bytes] = field(default_factory=dict)
    shared_bytes: int = 0
    packed: Any = field(default=None, repr=False, compare=False)


def find_disassembler(folder: Path) -> Path:
    """Find ``nvdisasm`` in an environment of its own below `folder`; install it from the package registry if missing.

    Raises:
        subprocess.CalledProcessError: pip failed; what it said is on stderr.
    """
    found = list(folder.glob("lib/python*/site-packages/nvidia/*/bin/nvdisasm"))
    if not found:
        venv.create(folder, with_pip=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", PACKAGE]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found = list(folder.glob("lib/python*/site-packages/nvidia/*/bin/nvdisasm"))
    return found[0]


def disassemble(code: bytes, disassembler: Path) -> str:
    """Return the listing of a cubin by ``nvdisasm -c``."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [str(disassembler), "-c", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read_kernels(code: bytes, disassembler: Path) -> dict[str, MachineCode]:
    """Decode all kernels of a cubin and return them by name."""
    kernels = parse_listing(disassemble(code, disassembler))
    sections = dict(_sections(code))
    for name, kernel in kernels.items():
        kernel.parameter_offset = _parameter_offset(sections[f".nv.info.{name}"][1])
        kernel.shared_bytes = sections.get(f".nv.shared.{name}", (0, b""))[0]
        for section, (_, content) in sections.items():
            if match := re.match(rf"\.nv\.constant(\d+)(\.{re.escape(name)})?$", section):
                kernel.constants[int(match[1])] = content
    return kernels


def parse_listing(listing: str) -> dict[str, MachineCode]:
    """Decode the kernels of a listing, without the sizes and constants that only the ELF file has."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if match := _SECTION.search(line):
            lines = parts.setdefault(match[1], [])
        elif re.match(r"\s*\.section\s", line):
            lines = []
        else:
            lines.append(line)
    return {name: _kernel(name, lines) for name, lines in parts.items()}


def _kernel(name: str, lines: list[str]) -> MachineCode:
    labels: dict[str, int] = {}
    texts: list[str] = []
    for line in lines:
        if match := _INSTRUCTION.match(line):
            if int(match[1], 16) != 16 * len(texts):
                raise ValueError(f"{name}: the instruction before {line.strip()} is missing")
            texts.append(match[2].strip())
        elif match := _LABEL.match(line.strip()):
            labels[match[1]] = len(texts)
    instructions = [decode(text) for text in texts]
    targets = {i: labels[each.label] for i, each in enumerate(instructions) if each.label}
    for i, each in enumerate(instructions):
        if each.opcode == "RET" and targets.get(i) != 0:
            raise ValueError(f"{name}: {texts[i]}: a return that is not counted from the kernel's beginning")
    return MachineCode(instructions, texts, targets)


def _parameter_offset(info: bytes) -> int:
    for attribute, content in info_attributes(info):
        if attribute == _PARAMETER_BANK:
            _, offset, _ = struct.unpack_from("<IHH", content)
            return int(offset)
    return 0


def _sections(code: bytes) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield name, size and content of each section of the ELF file; shared memory has a size and no content."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", code, table + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    for header in headers:
        start = names + header[0]
        name = code[start : code.index(b"\0", start)].decode()
        content = b"" if header[1] == _NO_BITS else code[header[4] : header[4] + header[5]]
        yield name, (header[5], content)
