"""Tables of attempts to break the project, and of the test suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "ROWS"]


def _suite(record: dict[str, Any]) -> list[str]:
    results, versions = record["results"], record["results"]["versions"]

    def version(*names: str) -> str:
        return next((number for name, number in versions.items() if name in names), "-")

    cells = [results["environment"], record["environment"]["python"], version("numpy")]
    cells += [version("cuda-bindings"), version("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")]
    cells += [version("onnxruntime"), version("opencv-python-headless")]
    cells += [str(results[outcome]) for outcome in ("passed", "failed", "skipped")]
    return [f"| {' | '.join(cells)} | {results['date']} |"]


def _bad_inputs(record: dict[str, Any]) -> list[str]:
    outcomes = ("right", "said", "refused", "lost", "silent", "broken")
    return [
        f"| {row['kind']} | {row['tries']} | {' | '.join(str(row[outcome]) for outcome in outcomes)} |"
        for row in record["results"]
    ]


def _storm(record: dict[str, Any]) -> list[str]:
    """Return a row for each campaign, and one with the sums."""
    results = record["results"]
    outcomes = ("ok", "refused", "visible", "traceback", "hang", "crash", "silent", "torn", "leftover")
    rows = sorted(results["rows"], key=lambda row: str(row["campaign"]))
    total = {name: sum(row[name] for row in rows) for name in ("tries", *outcomes)}
    return [
        f"| {results['release']} | {row['campaign']} | {row['tries']} | {' | '.join(str(row[n]) for n in outcomes)} |"
        for row in (*rows, {"campaign": "**all**", **total})
    ]


def _mutants(record: dict[str, Any]) -> list[str]:
    """Return a row for each module: the mutants tried, and those that the tests noticed."""
    lines = []
    for row in record["results"]["modules"]:
        excused = sum("reason" in survivor for survivor in row["survivors"])
        lines.append(
            f"| {row['name']} (`{Path(row['module']).name}`) | {record['results']['tests']} "
            f"| {row['tried']} of {row['of']} | {row['noticed']} (**{row['noticed'] / row['tried']:.0%}**) "
            f"| {excused} | {len(row['survivors']) - excused} |"
        )
    return lines


def _mutant_survivors(record: dict[str, Any]) -> list[str]:
    """Return a row for each survivor of the present tests."""
    if record["results"]["tests"] != "now":
        return []
    return [
        f"| {row['name']}, line {survivor['line']} | `{_in_a_cell(survivor['change'])}` "
        f"| {survivor.get('reason', '')} |"
        for row in record["results"]["modules"]
        for survivor in row["survivors"]
    ]


def _in_a_cell(code: str) -> str:
    short = code if len(code) <= 160 else f"{code[:78]} … {code[-78:]}"
    return short.replace("|", "\\|").replace("`", "'")


HEADERS = {
    "bad_inputs": "| kind of bad input | tries | right | done, with a warning | refused, with the reason | others lost "
    "| wrong in silence | broken |",
    "mutants": "| module | tests | tried | noticed | survive, with a reason | survive |",
    "mutant_survivors": "| module | change | why it may survive |",
    "suite": "| environment | Python | NumPy | cuda-bindings | NVRTC | ONNX Runtime | OpenCV | passed | failed "
    "| skipped | date |",
    "storm": "| release | campaign | tries | ok | refused | visible | traceback | hang | crash | silently wrong | torn "
    "| leftover |",
}
"""Header line by the name of the table."""
ROWS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "bad_inputs": _bad_inputs,
    "mutant_survivors": _mutant_survivors,
    "mutants": _mutants,
    "storm": _storm,
    "suite": _suite,
}
"""Function that renders the rows of one record, by the name of the table."""
