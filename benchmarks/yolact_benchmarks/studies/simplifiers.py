"""Benefit of ONNX simplifiers: ``python -m yolact_benchmarks.studies.simplifiers``.

The study needs the dependency group ``simplifiers``. It counts the nodes of each graph, checks its outputs against
PyTorch, and times all graphs side by side in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.timing import time_interleaved
from yolact_plugins.staging import scratch_folder
from yolact_runtime.backends.onnxruntime_session import open_cpu_session

__all__ = ["main"]

# Operators that tracing leaves in a graph to compute shapes.
_DEBRIS = {"Shape", "Gather", "Where", "Cast", "Slice", "Constant", "ConstantOfShape", "Identity", "Unsqueeze", "Range"}


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a table, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.simplifiers", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    with scratch_folder("simplifiers") as folder:
        rows = _compare(options.checkpoint, Path(folder), options.repeats)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.results:
        command = (
            f"python -m yolact_benchmarks.studies.simplifiers {options.checkpoint.name} --repeats {options.repeats}"
        )
        write_record(options.results, f"simplifiers-{options.checkpoint.stem}", rows, command)
    return 0


def _compare(checkpoint: Path, folder: Path, repeats: int) -> list[dict[str, Any]]:
    import onnx
    import torch

    from yolact_export.checkpoint.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint).model
    image = torch.randn(1, 3, model.config.input_height, model.config.input_width)
    with torch.inference_mode():
        expected = [tensor.numpy() for tensor in model(image)]
    rows: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], object]] = {}
    for name, seconds, path in _graphs(model, image, folder):
        graph = onnx.load(path).graph
        counts = Counter(node.op_type for node in graph.node)
        session = open_cpu_session(path)
        feeds = {session.get_inputs()[0].name: image.numpy()}
        found = session.run(None, feeds)
        rows.append(
            {
                "graph": name,
                "seconds": round(seconds, 1),
                "nodes": len(graph.node),
                "debris": sum(count for kind, count in counts.items() if kind in _DEBRIS),
                "mb": round(path.stat().st_size / 1e6, 1),
                "max_difference": float(
                    f"{max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)):.1e}"
                ),
            }
        )
        runs[name] = partial(session.run, None, feeds)
    timings = time_interleaved(runs, repeats)
    fastest = timings["written"].median_ms
    for row in rows:
        row["ms"] = dataclasses.asdict(timings[row["graph"]])["median_ms"]
        row["time_over_written"] = round(row["ms"] / fastest, 3)
    return rows


def _graphs(model: Any, image: Any, folder: Path) -> list[tuple[str, float, Path]]:
    """Return name, seconds to make, and path of each graph."""
    import onnx
    import onnxsim
    import onnxslim
    import torch

    from yolact_export.graph.export import export_network
    from yolact_export.graph.file import write_model

    def trace(path: Path, dynamo: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older exporter warns that it is deprecated
            torch.onnx.export(model, (image,), str(path), dynamo=dynamo, opset_version=18, external_data=False)

    def slim(source: Path, path: Path) -> None:
        onnx.save(onnxslim.slim(str(source)), path)

    def simplify(source: Path, path: Path) -> None:
        simplified, _ = onnxsim.simplify(onnx.load(source))
        onnx.save(simplified, path)

    made: list[tuple[str, float, Path]] = []

    def make(name: str, write: Callable[[Path], object]) -> Path:
        path = folder / f"{name.replace(' ', '-')}.onnx"
        started = time.perf_counter()
        write(path)
        made.append((name, time.perf_counter() - started, path))
        return path

    sources = {
        "traced": make("traced", lambda path: trace(path, dynamo=False)),
        "traced dynamo": make("traced dynamo", lambda path: trace(path, dynamo=True)),
        "written": make("written", lambda path: write_model(export_network(model), path)),
    }
    for name, source in sources.items():
        make(f"{name} + onnxslim", partial(slim, source))
        make(f"{name} + onnxsim", partial(simplify, source))
    return made


if __name__ == "__main__":
    sys.exit(main())
