"""Latency that pruning saves, measured on the whole network, and a table of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch

from yolact_calibration.errors import PruningError, TextError
from yolact_calibration.pruning.latency import positive_ms
from yolact_calibration.pruning.network_timer import time_networks_ms
from yolact_calibration.pruning.prune import PruneReport
from yolact_export.checkpoint.checkpoint import LoadedCheckpoint
from yolact_export.graph.export import ExportOptions, export_network
from yolact_export.graph.file import write_model
from yolact_export.model.yolact import Yolact
from yolact_plugins.files import write_atomically
from yolact_plugins.staging import scratch_folder
from yolact_plugins.text import read_json

__all__ = ["measure_network", "report_lines"]

_NETWORKS = ("dense", "pruned")


def measure_network(
    loaded: LoadedCheckpoint, model: torch.nn.Module, report: PruneReport, cache: Path, num_threads: int
) -> PruneReport:
    """Measure the whole exported networks, and return the report with their times.

    Args:
        loaded: Dense model.
        model: Pruned model, on the same device.
        report: Report of the pruning.
        cache: File that stores the times: a second run, after an interruption, must make the same decisions.
        num_threads: Number of threads, as on the robot.
    """
    key = _structure_digest(model, report)
    known = _read_cache(cache)
    if key not in known:
        known[key] = _time_networks(loaded, model, num_threads)
        write_atomically(cache, (json.dumps(known, indent=1) + "\n").encode())
    return report.with_measured_ms(*known[key])


def _read_cache(cache: Path) -> dict[str, list[float]]:
    """Read the milliseconds of the dense and of the pruned network, by structure.

    Raises:
        PruningError: The file is not such a cache.
    """
    if not cache.exists():
        return {}
    try:
        return {
            str(key): [positive_ms(ms) for _, ms in zip(_NETWORKS, times, strict=True)]
            for key, times in read_json(cache).items()
        }
    except (TextError, TypeError, ValueError, AttributeError) as error:
        raise PruningError(f"{cache} is not a file of network times ({error}); delete it to measure again") from error


def _structure_digest(model: torch.nn.Module, report: PruneReport) -> str:
    shapes = sorted((key, tuple(value.shape)) for key, value in model.state_dict().items())
    return hashlib.sha256(f"{report.backend} {shapes}".encode()).hexdigest()


def _time_networks(loaded: LoadedCheckpoint, model: torch.nn.Module, num_threads: int) -> list[float]:
    """Measure the milliseconds of the dense and of the pruned network."""
    device = next(model.parameters()).device
    with scratch_folder("prune") as folder:
        paths: dict[str, Path] = {}
        for name, network in zip(_NETWORKS, (loaded.model, model), strict=True):
            assert isinstance(network, Yolact)
            exported = export_network(dataclasses.replace(loaded, model=network.cpu()), ExportOptions())
            write_model(exported, paths.setdefault(name, folder / f"{name}.onnx"))
            network.to(device)
        times = time_networks_ms(paths, loaded.config.input_spec(), num_threads=num_threads)
    return [round(times["dense"], 3), round(times["pruned"], 3)]


def report_lines(report: PruneReport) -> list[str]:
    """Return the lines of a readable table that compares the dense and the pruned model."""
    rows = [
        ("parameters", *(f"{count / 1e6:.2f} M" for count in report.num_parameters)),
        ("GFLOPs", *(f"{value:.2f}" for value in report.gflops)),
        *((block, *(f"{ms:.2f} ms" for ms in pair)) for block, pair in report.block_ms.items()),
        ("convolutions", *(f"{ms:.2f} ms" for ms in report.estimated_ms)),
    ]
    lines = [f"{'':18}{'dense':>12}{'pruned':>12}"]
    if report.measured_ms is not None:
        before, after = report.measured_ms
        rows.append((f"network ({after / before:.0%})", f"{before:.2f} ms", f"{after:.2f} ms"))
    return lines + [f"{name:18}{before:>12}{after:>12}" for name, before, after in rows]
