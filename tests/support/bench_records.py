"""Records of ``yolact-bench`` with artificial series, whose statistics are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolact_benchmarks.machine.machine_state import MachineSample
from yolact_benchmarks.measure.measurement import Series
from yolact_benchmarks.measure.stages import MASKS, NETWORK, FrameTimes
from yolact_benchmarks.report.document import case_document, envelope, machine_document

__all__ = ["bench_record", "steady_ms"]


def steady_ms(seed: int, median_ms: float = 20.0, count: int = 150, spread: float = 0.01) -> list[float]:
    """Draw latencies with a tail, like real ones."""
    random = np.random.default_rng(seed)
    values: list[float] = (median_ms * (1 + spread * (random.gamma(2, 1, count) - 1.68))).tolist()
    return values


def bench_record(
    series: dict[tuple[str, int], Sequence[float]],
    accuracy: dict[str, float] | None = None,
    yardstick_ms: float = 1.0,
    reasons: Sequence[str] = (),
    joules: float | None = None,
    num_processes: int = 5,
    is_disturbed: bool = False,
    parallel_ms: float = 1.0,
    **environment: Any,
) -> dict[str, Any]:
    """Make a record.

    Args:
        series: Latencies by precision and number of instances, at 1920 x 1080.
        accuracy: Mask AP by precision.
        yardstick_ms: Time of the machine's fixed piece of work, milliseconds.
        reasons: Reasons to distrust the machine.
        joules: Energy of a frame, by a meter called "board".
        num_processes: Number of processes that every series is from, in equal parts.
        parallel_ms: Time of the fixed piece of work on all cores, milliseconds.
        is_disturbed: Whether other processes kept half of the cores busy.
        environment: Fields of the environment to replace.
    """
    cases = []
    for (precision, count), values in series.items():
        one = Series(counts=[len(part) for part in np.array_split(values, num_processes)])
        for i, ms in enumerate(values):
            one.add(FrameTimes(ms, {"network": 0.75 * ms, "masks": 0.25 * ms}, count), (i + 1) * ms / 1e3)
        if joules is not None:
            one.joules, one.energy_frames, one.busy_s = {"board": joules * len(values)}, len(values), one.seconds[-1]
        facts = {
            "precision": precision,
            "backend": "onnxruntime-cpu",
            "frames": {"name": "1920x1080", "source": "drawn scenes", "sizes": [[1920, 1080]]},
            "instances": count,
        }
        case = case_document(f"{precision} 1920x1080 {count}", (NETWORK, MASKS), one, facts, reasons, ["no meter"])
        cases.append(case | {"streaming": {"not_measured": "none"}})
    models: list[dict[str, Any]] = []
    for precision in dict.fromkeys(precision for precision, _ in series):
        model = {"name": "small", "precision": precision, "backend": "onnxruntime-cpu", "size_bytes": 3_400_000}
        cold = {"open": 50.0, "first_frame": 30.5, "to_first_result": 210.0, "peak_memory_mb": 91.0}
        models.append(model | {"file": f"model.{precision}.onnx", "input": [550, 550], "cold_start": cold})
        if accuracy is not None:
            ap = accuracy[precision]
            figures = [ap, ap - 0.02, ap + 0.02]
            models[-1]["accuracy"] = {"measure": "AP", "images": 40, "box": figures, "mask": figures}
    load = 0.5 if is_disturbed else 0.01
    samples = [
        MachineSample(i / 2, load, 0.0, 2600.0, yardstick_ms, parallel_yardstick_ms=parallel_ms) for i in range(12)
    ]
    results = {"models": models, "cases": cases, "machine": machine_document(samples, reasons, None)}
    record = envelope("yolact-bench small.bundle", {"threads": 0, "min_confidence": 0.3, "defaults": []}, results)
    record["environment"] |= environment
    return record
