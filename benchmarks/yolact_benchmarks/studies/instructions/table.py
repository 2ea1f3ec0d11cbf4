"""Tables of two records of executed instructions, before and after."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["AFTER_THE_NETWORK", "BITS_AND_RUNS", "COLUMNS", "HEADERS", "RUNS", "issued_by", "kernel_rows", "scene_rows"]

COLUMNS = ("blocks", "warp_instructions", "most_of_a_block", "most_of_a_warp", "global_sectors")
"""Of a kernel in a record."""
RUNS = r"mask_runs"
"""Whatever makes runs of bits, by the beginnings of the kernels' names."""
BITS_AND_RUNS = r"mask_(bits|runs)"
AFTER_THE_NETWORK = r"(?!preprocess)"
_ISSUED, _OF_A_WARP = 1, 3
HEADERS = {
    "instructions": "| GPU | scene | after the network: before | after | fewer | runs: before | after | fewer "
    "| bits and runs | longest warps: before | after | preprocess |",
    "instructions_kernels": "| kernel | 1 small | 10 small | 100 small | 1 of 45 % | 20 of 30 % |",
}
Record = dict[str, Any]


def issued_by(row: dict[str, Any], kernels: str, column: int = _ISSUED) -> int:
    """Sum of a column over the kernels of a scene whose names match an expression."""
    return sum(figures[column] for name, figures in row["kernels"].items() if re.match(kernels, name))


def scene_rows(records: list[Record]) -> list[str]:
    """A line for each architecture and scene, from the records with the labels "before" and "after"."""
    before, after = (_rows(records, label) for label in ("before", "after"))
    lines = []
    for key, row in before.items():
        later = after.get(key)
        cells = [key[0], _scene(row)]
        for kernels in (AFTER_THE_NETWORK, RUNS):
            cells += _compared(row, later, kernels, _ISSUED)
        cells.append(_compared(row, later, BITS_AND_RUNS, _ISSUED)[2].strip("*"))
        cells += _compared(row, later, AFTER_THE_NETWORK, _OF_A_WARP)[:2]
        first, second, _ = _compared(row, later, "preprocess", _ISSUED)
        cells.append(first if second in {first, "-"} else f"{first} -> {second}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def kernel_rows(records: list[Record], arch: str = "sm_90") -> list[str]:
    """A line for each kernel, before -> after in each scene."""
    before, after = (_rows(records, label) for label in ("before", "after"))
    scenes = [key for key in before if key[0] == arch]
    names = dict.fromkeys(
        name for rows in (before, after) for key in scenes if key in rows for name in rows[key]["kernels"]
    )
    lines = []
    for name in names:
        cells = [f"`{name}`"]
        for key in scenes:
            figures = [rows[key]["kernels"].get(name) if key in rows else None for rows in (before, after)]
            shown = [_thousands(each[_ISSUED]) if each else "-" for each in figures]
            cells.append(shown[0] if not after else " -> ".join(shown))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _rows(records: list[Record], label: str) -> dict[tuple[str, int, float], dict[str, Any]]:
    return {
        (row["arch"], row["objects"], row["area"]): row
        for record in records
        if record["results"]["label"] == label
        for row in record["results"]["rows"]
    }


def _scene(row: dict[str, Any]) -> str:
    return f"{row['objects']} of {row['area']:.1%}"


def _compared(row: dict[str, Any], later: dict[str, Any] | None, kernels: str, column: int) -> list[str]:
    before = issued_by(row, kernels, column)
    if later is None:
        return [_thousands(before), "-", "-"]
    after = issued_by(later, kernels, column)
    return [_thousands(before), _thousands(after), f"**{before / after:.1f} x**" if after else "-"]


def _thousands(count: int) -> str:
    if count < 100:
        return str(count)
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"
