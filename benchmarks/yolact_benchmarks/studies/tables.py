"""Tables of the documents, rendered from the records: ``python -m yolact_benchmarks.studies.tables [--check]``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.instructions import table as instructions
from yolact_benchmarks.studies.record_tables import costs, networks, reliability

__all__ = ["main", "render"]

ROOT = Path(__file__).parents[3]
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "bad-inputs",
            "benchmarks",
            "decisions",
            "export",
            "frame-cost",
            "install",
            "kernels",
            "mutants",
            "precision",
            "reliability",
            "training",
        )
    ),
)
RESULTS, MODELS = Path("benchmarks", "results"), Path("examples", "models")


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the tables, or check whether they are current with ``--check``; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = render(before, ROOT)
        if before != after:
            stale.append(name)
            if not options.check:
                path.write_text(after, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date; run: make tables' if options.check else 'rewritten'}")
    return 1 if options.check and stale else 0


def render(text: str, root: Path) -> str:
    """Return `text` with everything between ``<!-- table: NAME -->`` and ``<!-- end -->`` rendered from the records.

    Args:
        text: Content of a document.
        root: Root of the repository, with measurements in ``benchmarks/results`` and trained models in
            ``examples/models``.
    """

    def table(match: re.Match[str]) -> str:
        name = match[1]
        records = _RECORDS.get(name, name)
        found = (root / MODELS).glob("*.json") if name in _OF_MODELS else (root / RESULTS).glob(f"*/{records}*.json")
        loaded = [_load(path) for path in sorted(found)]
        rows = _OF_ALL[name](loaded) if name in _OF_ALL else [row for each in loaded for row in _TABLES[name](each)]
        header = _HEADERS[name]
        lines = [header, re.sub(r"[^|]+", " --- ", header), *rows]
        return f"<!-- table: {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def _load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


_OF_MODELS = {"models", "pruning"}
# Tables whose records have another name.
_RECORDS = {
    "frames": "bench",
    "bad_inputs": "bad-inputs",
    "mutant_survivors": "mutants",
    "instructions_times": "instructions",
    "instructions_kernels": "instructions",
    "instructions_others": "instructions",
    "host_part": "host-part",
    "packages": "libraries",
    "evaluators": "libraries",
}
_HEADERS = {**instructions.HEADERS, **costs.HEADERS, **networks.HEADERS, **reliability.HEADERS}
# Tables that compare records with each other.
_OF_ALL = {
    "instructions": instructions.scene_rows,
    "instructions_times": instructions.time_rows,
    "instructions_kernels": instructions.kernel_rows,
    "instructions_others": instructions.other_rows,
}
_TABLES = {**costs.ROWS, **networks.ROWS, **reliability.ROWS}


if __name__ == "__main__":
    sys.exit(main())
