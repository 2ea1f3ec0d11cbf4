"""Tables of two records of executed instructions, before and after."""

from __future__ import annotations

import re
from typing import Any

__all__ = [
    "AFTER_THE_NETWORK",
    "BITS_AND_RUNS",
    "COLUMNS",
    "GPUS",
    "HEADERS",
    "OTHERS",
    "RUNS",
    "issued_by",
    "kernel_rows",
    "other_rows",
    "scene_rows",
    "time_rows",
]

COLUMNS = ("blocks", "warp_instructions", "most_of_a_block", "most_of_a_warp", "global_sectors")
"""Columns of a kernel in a record."""
RUNS = r"mask_(runs|results)"
"""Pattern of the kernels that make runs of bits and copy them to host memory; it matches the beginning of a name."""
BITS_AND_RUNS = rf"mask_bits|{RUNS}"
OTHERS = r"mask_(id_map|dense|iou)|fast_nms_(best|cross)_class"
"""Pattern of the kernels that a frame only launches on request."""
AFTER_THE_NETWORK = r"(?!preprocess)"
_ALL = ""
_ISSUED, _OF_A_WARP = 1, 3
HEADERS = {
    "instructions": "| GPU | scene | after the network: before | after | fewer | runs: before | after | fewer "
    "| bits and runs | longest warps: before | after | float16, after the network: before | after | fewer |",
    "instructions_times": "| stage | 100 small: instructions | H100 | Orin | 1 of 45 %: instructions | H100 | Orin |",
    "instructions_kernels": "| kernel | 1 small | 10 small | 100 small | 1 of 45 % | 20 of 30 % "
    "| 10 small, list filled |",
    "instructions_others": "| kernel | 1 small | 10 small | 100 small | 1 of 45 % | 20 of 30 % |",
}
Record = dict[str, Any]
Key = tuple[str, int, float, float, str]
STAGES = {
    "frame to network input": "preprocess",
    "candidates": "candidates",
    "Fast NMS": "fast_nms",
    "windows and probabilities": "mask_(layout|soft)",
    "bits": "mask_bits",
    "runs": RUNS,
    "**all kernels**": _ALL,
}
GPUS = {
    "sm_75": (40, 1.59),
    "sm_80": (108, 1.41),
    "sm_86": (72, 1.70),
    "sm_87": (16, 1.3),
    "sm_89": (58, 2.04),
    "sm_90": (132, 1.98),
}
"""Multiprocessors and highest clock in GHz by the data sheets: T4, A100, A10, Jetson AGX Orin, L4, H100 SXM."""
_COMPARED = ("sm_90", "sm_87")
_SCENES = ((1, 0.025), (10, 0.025), (100, 0.025), (1, 0.45), (20, 0.3))
# Number of schedulers of a multiprocessor; each issues one instruction per clock at best.
_SCHEDULERS = 4
# Clocks from an instruction to one that needs its result, if neither waits for memory.
_LATENCY = 4


def issued_by(row: dict[str, Any], kernels: str, column: int = _ISSUED) -> int:
    """Sum a column over the kernels of a scene whose names match a pattern."""
    return sum(figures[column] for name, figures in row["kernels"].items() if re.match(kernels, name))


def scene_rows(records: list[Record]) -> list[str]:
    """Return a line for each architecture and scene, from the records with the labels "before" and "after"."""
    before, after = (_rows(records, label) for label in ("before", "after"))
    lines = []
    for key, row in before.items():
        if key[-1] != "float32":
            continue
        later = after.get(key)
        cells = [key[0], _scene(row)]
        for kernels in (AFTER_THE_NETWORK, RUNS):
            cells += _compared(row, later, kernels, _ISSUED)
        cells.append(_compared(row, later, BITS_AND_RUNS, _ISSUED)[2].strip("*"))
        cells += _compared(row, later, AFTER_THE_NETWORK, _OF_A_WARP)[:2]
        half = (*key[:-1], "float16")
        cells += _compared(before[half], after.get(half), AFTER_THE_NETWORK, _ISSUED) if half in before else ["-"] * 3
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def kernel_rows(records: list[Record], arch: str = "sm_90") -> list[str]:
    """Return a line for each kernel, with its instructions before and after in each scene."""
    before, after = (_rows(records, label) for label in ("before", "after"))
    scenes = [key for key in before if key[0] == arch and key[-1] == "float32"]
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


def other_rows(records: list[Record], arch: str = "sm_90") -> list[str]:
    """Return a line for each kernel that a usual frame does not launch, from the record with the label "others"."""
    found = _rows(records, "others")
    rows = [found.get((arch, *scene, 0.3, "float32")) for scene in _SCENES]
    names = dict.fromkeys(name for row in rows if row for name in row["kernels"])
    lines = []
    for name in names:
        figures = [row["kernels"].get(name) if row else None for row in rows]
        lines.append(f"| `{name}` | {' | '.join(_thousands(each[_ISSUED]) if each else '-' for each in figures)} |")
    return lines


def time_rows(records: list[Record]) -> list[str]:
    """Return a line for each stage, with its instructions and the time estimated from them.

    The lines are of the latest record; the last one has the total of the earlier record.
    """
    before, after = (_rows(records, label) for label in ("before", "after"))
    lines = [_stage_row(stage, after or before, kernels) for stage, kernels in STAGES.items()]
    return [*lines, _stage_row(f"all kernels, {_commit(records)}", before, _ALL)] if after else lines


def _commit(records: list[Record]) -> str:
    """Return the table's name for the version of the record with the label "before"."""
    (commit,) = (each["results"]["commit"] for each in records if each["results"]["label"] == "before")
    return f"before (commit {commit})"


def _stage_row(stage: str, rows: dict[Key, dict[str, Any]], kernels: str) -> str:
    cells = [stage]
    for scene in ((100, 0.025, 0.3, "float32"), (1, 0.45, 0.3, "float32")):
        of_scene = [rows.get((arch, *scene)) for arch in _COMPARED]
        cells.append(_thousands(issued_by(of_scene[0], kernels)) if of_scene[0] else "-")
        cells += [_time(row, kernels) if row else "-" for row in of_scene]
    return f"| {' | '.join(cells)} |"


def _time(row: dict[str, Any], kernels: str) -> str:
    """Estimate the time of consecutive kernels: the sum of the larger one of two bounds for each."""
    cores, clock = GPUS[row["arch"]]
    time_us = 0.0
    for name, figures in row["kernels"].items():
        if re.match(kernels, name):
            spread = figures[_ISSUED] / (cores * _SCHEDULERS)
            time_us += max(spread, figures[_OF_A_WARP] * _LATENCY) / clock / 1e3
    return f"{time_us:.0f} µs" if time_us >= 10 else f"{time_us:.1f} µs"


def _rows(records: list[Record], label: str) -> dict[Key, dict[str, Any]]:
    return {
        (row["arch"], row["objects"], row["area"], row["min_confidence"], row["dtype"]): row
        for record in records
        if record["results"]["label"] == label
        for row in record["results"]["rows"]
    }


def _scene(row: dict[str, Any]) -> str:
    return f"{row['objects']} of {row['area']:.1%}" + ("" if row["min_confidence"] else ", list filled")


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
