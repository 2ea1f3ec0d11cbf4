"""Tables in documents, generated from the committed records: ``python -m yolact_benchmarks.tables [--check]``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main", "render"]

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/decisions.md")


def main(arguments: list[str] | None = None) -> int:
    """Entry point: rewrite the tables, or with ``--check`` only say whether they are current."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = render(before, ROOT / "benchmarks" / "results")
        if before != after:
            stale.append(name)
            if not options.check:
                path.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date; run: make tables' if options.check else 'rewritten'}")
    return 1 if options.check and stale else 0


def render(text: str, results: Path) -> str:
    """`text` with everything between ``<!-- table: NAME -->`` and ``<!-- end -->`` made anew from the records."""

    def table(match: re.Match[str]) -> str:
        name = match[1]
        rows = [row for path in sorted(results.glob(f"*/{name}*.json")) for row in _TABLES[name](_load(path))]
        header = _HEADERS[name]
        lines = [header, re.sub(r"[^|]+", " --- ", header), *rows]
        return f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def _load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _machine(record: dict[str, Any]) -> str:
    return f"{record['environment']['cpu']}, {record['environment']['cores']} cores"


def _postprocess(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['instances']} instances, boxes of {row['box_area']:.1%} of {row['frame'][1]} x {row['frame'][0]} "
        f"| {row['ours']['median_ms']:.1f} ms | {row['dense_torch']['median_ms']:.0f} ms | **{row['ratio']:.0f} x** "
        f"| {row['ours_peak_mb']:.0f} MB | {row['dense_torch_peak_mb']:.0f} MB | {_machine(record)} |"
        for row in record["results"]
    ]


def _export(record: dict[str, Any]) -> list[str]:
    row = record["results"]
    return [
        f"| {row['checkpoint']} ({row['checkpoint_mb']:.0f} MB) | {row['seconds']:.1f} s "
        f"| {row['extra_peak_mb']:.0f} MB | {row['extra_over_checkpoint']:.1f} x | {_machine(record)} |"
    ]


def _simplifiers(record: dict[str, Any]) -> list[str]:
    return [
        f"| {row['graph']} | {row['seconds']:.1f} s | {row['nodes']} | {row['debris']} | {row['mb']:.1f} MB "
        f"| {row['max_difference']:.0e} | {row['time_over_written']:.2f} |"
        for row in record["results"]
    ]


_HEADERS = {
    "postprocess": "| scene | this runtime | dense PyTorch | ratio | peak memory | dense PyTorch | machine |",
    "export": "| checkpoint | export with verification | extra memory | over checkpoint | machine |",
    "simplifiers": "| graph | made in | nodes | debris | file | largest difference to torch | time over written |",
}
_TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "postprocess": _postprocess,
    "export": _export,
    "simplifiers": _simplifiers,
}


if __name__ == "__main__":
    sys.exit(main())
