"""Resources of the compiled CUDA kernels, for every architecture: ``python -m yolact_benchmarks.studies.kernels``.

Registers, shared memory and spills determine how many threads a GPU keeps busy; they are known without a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record
from yolact_plugins.compile.compiler import OPTIONS, compile_cubin, nvrtc_version, supported_archs
from yolact_plugins.compile.sources import families, read_source

__all__ = ["ARCHS", "main"]

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_110", "sm_120")
"""Architectures that the project compiles for: Turing to Blackwell, Orin and Thor."""


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a table, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.kernels", description=__doc__)
    parser.add_argument(
        "--arch",
        nargs="+",
        metavar="sm_XY",
        help="architectures (default: the project's, as far as NVRTC supports them)",
    )
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    # NVRTC 12.6 does not support Blackwell.
    archs = options.arch or [arch for arch in ARCHS if arch in supported_archs()]
    rows = [row for family in families() for arch in archs for row in _figures(family, arch)]
    for row in rows:
        spilled = row["spill_store_bytes"] + row["spill_load_bytes"]
        print(
            f"{row['family']:16} {row['kernel']:36} {row['arch']:7} {row['registers']:4} registers "
            f"{row['shared_bytes']:6} B shared {row['stack_bytes']:5} B stack {spilled:5} B spilled"
        )
    if options.results:
        results = {"nvrtc": nvrtc_version(), "options": list(OPTIONS), "kernels": rows}
        command = f"python -m yolact_benchmarks.studies.kernels --arch {' '.join(archs)}"
        write_record(options.results, "kernels", results, command)
    return 0


def _figures(family: str, arch: str) -> list[dict[str, Any]]:
    start = time.perf_counter()
    cubin = compile_cubin(read_source(family), arch)
    compile_ms = round((time.perf_counter() - start) * 1000)
    shared = {"family": family, "arch": arch, "source_digest": cubin.source_digest[:12]}
    family_wide = {"family_cubin_bytes": len(cubin.code), "family_compile_ms": compile_ms}
    return [
        {**shared, "kernel": name, **dataclasses.asdict(figures), **family_wide}
        for name, figures in sorted(cubin.figures.items())
    ]


if __name__ == "__main__":
    sys.exit(main())
