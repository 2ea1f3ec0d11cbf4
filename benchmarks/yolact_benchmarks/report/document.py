"""The record of ``yolact-bench``: JSON with every sample, from which tables, reports and comparisons are generated.

This is schema 1. Its units are milliseconds, megabytes of 10^6 bytes, joules and watts. A figure that could not be
measured is null, or an object with ``"not_measured"`` and the reason.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.machine.machine_state import MachineSample, find_disturbances
from yolact_benchmarks.measure.measurement import Series
from yolact_benchmarks.measure.stages import NETWORK, Stage
from yolact_benchmarks.report.record import environment
from yolact_benchmarks.statistics.between_processes import median_interval, split_series
from yolact_benchmarks.statistics.stability import DEFAULT_LIMITS, StabilityLimits, Verdict, judge_series
from yolact_benchmarks.statistics.statistics import summarise
from yolact_calibration.report.provenance import now_utc
from yolact_plugins import __version__
from yolact_plugins.text import read_json
from yolact_runtime.errors import TextError, YolactError

__all__ = ["BENCHMARK", "SCHEMA", "BenchRecordError", "case_document", "envelope", "machine_document", "read_record"]

BENCHMARK, SCHEMA = "yolact-bench", 1
_DIGITS = 4
# Environment variables that change the speed of the libraries without appearing on the command line.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


class BenchRecordError(YolactError):
    """A file is not a record of ``yolact-bench``, or one of another version."""


def envelope(
    command: str,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    files: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Assemble the whole record.

    Args:
        command: Command line of the run.
        settings: Settings of the run, including defaults.
        results: Results: ``"models"``, ``"cases"``, ``"machine"`` and the optional measurements.
        files: Entries of the model's files; see :func:`yolact_calibration.report.provenance.file_entry`.
    """
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {
        "benchmark": BENCHMARK,
        "schema": SCHEMA,
        "command": command,
        "date": now_utc(),
        "created_with": {"yolact-deploy": __version__},
        "files": [dict(one) for one in files],
        "environment": {**environment(), "kernel": platform.release(), "variables": variables},
        "settings": dict(settings),
        "results": dict(results),
    }


def case_document(
    name: str,
    stages: Sequence[Stage],
    series: Series,
    facts: Mapping[str, Any],
    machine_reasons: Sequence[str],
    missing_meters: Sequence[str],
    limits: StabilityLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Return a record's entry of one configuration.

    Args:
        name: Name of the configuration.
        stages: Stages of its frames.
        series: Measurements of its frames.
        facts: Properties of the configuration: ``"precision"``, ``"backend"``, ``"frames"``, ``"instances"``.
        machine_reasons: Reasons to distrust the whole run.
        missing_meters: Reasons why energy meters are unavailable.
        limits: Limits of a stable measurement.
    """
    counts = series.counts or None
    summary = summarise(series.total_ms, counts=counts)
    verdict = Verdict((*judge_series(series.total_ms, summary, limits, counts).reasons, *machine_reasons))
    found = series.num_instances
    return {
        "name": name,
        **facts,
        "found": {"min": min(found), "median": float(np.median(found)), "max": max(found)},
        "latency": summary.document(),
        "stages": [_stage_document(series, one.name, one.what, one.clock) for one in stages],
        "around_network": _around_network(series),
        "energy": _energy(series, missing_meters),
        "verdict": verdict.document(),
        "samples_ms": [round(ms, _DIGITS) for ms in series.total_ms],
        "seconds": [round(second, 3) for second in series.seconds],
        "processes": series.counts or [len(series.total_ms)],
    }


def _stage_document(series: Series, name: str, what: str, clock: str) -> dict[str, Any]:
    ms = series.stage_ms.get(name, [])
    # A stage that was not run in some process (mask re-scoring without any instance) has no medians to compare.
    whole = len(ms) == len(series.total_ms)
    interval = median_interval(split_series(ms, series.counts if whole else None))
    share = sum(ms) / sum(series.total_ms) if ms and clock == "wall" else None
    figures = {"median_ms": interval.estimate, "low_ms": interval.low, "high_ms": interval.high}
    rounded = {key: None if value is None else round(value, _DIGITS) for key, value in figures.items()}
    p99 = round(float(np.percentile(ms, 99)), _DIGITS) if len(ms) >= 100 else None
    return {
        "name": name,
        "what": what,
        "clock": clock,
        **rounded,
        "p99_ms": p99,
        "share": None if share is None else round(share, 4),
    }


def _around_network(series: Series) -> float | None:
    """Return the median of a frame's time outside of its network, over the time of the network."""
    network = np.asarray(series.stage_ms.get(NETWORK.name, []))
    if not len(network):
        return None
    return round(float(np.median((np.asarray(series.total_ms) - network) / network)), 4)


def _energy(series: Series, missing: Sequence[str]) -> dict[str, Any]:
    known = {
        name: {
            "joules_per_frame": round(joules / series.energy_frames, 5),
            "watts": round(joules / series.busy_s, 3),
        }
        for name, joules in series.joules.items()
        if joules is not None and series.energy_frames and series.busy_s > 0
    }
    return known or {"not_measured": "; ".join(missing) or "a reading failed"}


def machine_document(samples: Sequence[MachineSample], reasons: Sequence[str], peak_device_mb: float | None) -> Any:
    """Return a record's entry of the machine's state.

    Args:
        samples: Samples in the order they were taken.
        reasons: Reasons to distrust the measurement.
        peak_device_mb: Peak memory in use on the GPU, MB; None if it was not measured.
    """
    fields = [field.name for field in dataclasses.fields(MachineSample) if field.name != "seconds"]
    silent = [name for name in fields if all(getattr(sample, name) is None for sample in samples)]
    return {
        "samples": [sample.document() for sample in samples],
        "reasons": list(reasons),
        "disturbances": list(find_disturbances(samples)),
        "not_measured": silent,
        "peak_device_memory_mb": peak_device_mb,
    }


def read_record(path: Path) -> dict[str, Any]:
    """Read a record from a file.

    Raises:
        BenchRecordError: The file is missing, or is not a record of this schema.
    """
    try:
        document = read_json(path)
    except TextError as error:
        raise BenchRecordError(
            f"cannot read {path} as a record ({error}); yolact-bench MODEL --json NEW.json writes one"
        ) from error
    is_record = isinstance(document, dict) and document.get("benchmark") == BENCHMARK
    if not is_record or document.get("schema") != SCHEMA:
        found = document.get("schema") if is_record else "something else"
        raise BenchRecordError(
            f"{path} is not a record of yolact-bench with schema {SCHEMA} (found {found}); measure again with --json "
            f"NEW.json"
        )
    record: dict[str, Any] = document
    return record
