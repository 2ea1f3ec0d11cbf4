"""The report of a precision export: its JSON document, its page, and the table at the end."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolact_calibration.float16.conversion import TOO_COARSE
from yolact_calibration.pruning.network_timer import time_networks_ms
from yolact_calibration.quantisation.calibration_cache import Calibration
from yolact_calibration.quantisation.int8 import Int8Model
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import Grid, judge_range
from yolact_calibration.report.contact_sheet import draw_sheet
from yolact_export.precision.precision import PrecisionRequest, PrecisionResult, Variant
from yolact_plugins.files import human_size
from yolact_runtime.model.manifest import Manifest

__all__ = ["float32_lines", "measure_latencies", "output_lines", "precision_document", "table_lines", "verdict"]

# Precisions that ONNX Runtime can time meaningfully; the others are for GPUs.
_TIMED = ("fp32", "int8-cpu")
# Speedup below which INT8 is not worth it.
_WORTH = 1.05
_BINS_SHOWN = 48
# Smallest loss in points that two decimals show.
_LEAST_SHOWN = 0.005
_NAMES_SHOWN = 4


def measure_latencies(result: PrecisionResult, manifest: Manifest, num_threads: int) -> dict[str, float]:
    """Measure, interleaved, the milliseconds of networks for ONNX Runtime's CPU provider; others have no entry."""
    models = {v.precision: v.path for v in result.variants if v.precision in _TIMED and v.passed}
    return time_networks_ms(models, manifest.input, num_threads=num_threads) if len(models) > 1 else {}


def verdict(result: PrecisionResult, latency_ms: Mapping[str, float]) -> str:
    """Return a sentence that says whether INT8 is worth it."""
    if rejected := [variant for variant in result.variants if not variant.passed]:
        faults = _faults(rejected, result.max_drop)
        return f"{faults} and {'is' if len(rejected) == 1 else 'are'} rejected; the other networks are kept"
    if unsound := [variant for variant in result.variants if not variant.is_sound]:
        return f"{_faults(unsound, result.max_drop)}: no verdict, and kept because no limit was set"
    return f"{_worth(result, latency_ms)}{_kept_single(result)}"


def _worth(result: PrecisionResult, latency_ms: Mapping[str, float]) -> str:
    made = {variant.precision: variant for variant in result.variants if variant.precision != "fp32"}
    if "int8-cpu" in latency_ms:
        speedup = latency_ms["fp32"] / latency_ms["int8-cpu"]
        if speedup < _WORTH:
            return f"INT8 is not worth it here: {speedup:.2f} x as fast; run with --precision fp32 on this machine"
        words = "INT8 is" if math.isinf(result.max_drop) else "INT8 is worth it here:"
        return f"{words} {speedup:.1f} x as fast, {_price(made['int8-cpu'], result)}"
    smallest = min(made.values(), key=lambda variant: variant.path.stat().st_size)
    ratio = result.variants[0].path.stat().st_size / smallest.path.stat().st_size
    return (
        f"{smallest.precision} is {ratio:.1f} x smaller, {_price(smallest, result)}; its speed shows on the "
        f"GPU that will run it"
    )


def _kept_single(result: PrecisionResult) -> str:
    """Return text about layers beyond float16's range that are in float32, by network; empty if there are none."""
    kept: dict[tuple[str, ...], list[str]] = {}
    for variant in result.variants:
        nodes = {} if variant.half is None else variant.half.kept_single
        if names := tuple(name for name, why in nodes.items() if why != TOO_COARSE):
            kept.setdefault(names, []).append(variant.precision)
    return "".join(
        f"; {' and '.join(precisions)} compute{'s' * (len(precisions) == 1)} {_some(names)} in float32"
        for names, precisions in kept.items()
    )


def _faults(variants: Sequence[Variant], max_drop: float) -> str:
    """Return what is wrong with some networks; those with the same fault together."""
    by_fault: dict[str, list[str]] = {}
    for variant in variants:
        by_fault.setdefault(_fault(variant, max_drop), []).append(variant.precision)
    return ", ".join(f"{' and '.join(names)} {fault}" for fault, names in by_fault.items())


def _fault(variant: Variant, max_drop: float) -> str:
    """Return what is wrong with a network, and where it overflows if it does."""
    where = f" (it overflows: {variant.overflow})" if variant.overflow is not None else ""
    if not variant.is_sound:
        return f"gave outputs that are not finite{where}"
    if variant.int8 is not None and not variant.int8.num_int8:
        return "had no part left in INT8"
    return f"lost more than {max_drop:g} points{where}"


def _price(variant: Variant, result: PrecisionResult) -> str:
    lost = variant.judgement.worst
    words = f"for {lost:.2f} points of {result.measure}" if lost >= _LEAST_SHOWN else f"at no loss of {result.measure}"
    return f"{words} (no limit was set)" if math.isinf(result.max_drop) else words


def precision_document(
    result: PrecisionResult, request: PrecisionRequest, manifest: Manifest, latency_ms: Mapping[str, float]
) -> dict[str, Any]:
    """Return a JSON object; :mod:`yolact_calibration.report.precision_report` generates the page from it."""
    chosen = _most_searched(result.variants)
    int8 = chosen.int8
    document: dict[str, Any] = {
        "name": manifest.name,
        "created_with": {name: importlib.metadata.version(name) for name in ("yolact-deploy", "onnxruntime", "onnx")},
        "calibration": {**result.calibration.document(), "method": request.method.value},
        "variants": [_variant(variant, latency_ms, request, result.max_drop) for variant in result.variants],
        "guard": {
            "max_drop": None if math.isinf(result.max_drop) else result.max_drop,
            "measure": result.measure,
            "passed": result.passed,
            "drop": _drop(chosen),
        },
        "verdict": verdict(result, latency_ms),
        "worst_images": _worst(result.variants[0], chosen, request, manifest),
    }
    if int8 is not None:
        document |= {
            "ranges": _ranges(int8, result.calibration),
            "sensitivity": [_with_cost(item.document(), int8) for item in int8.sensitivity],
            "search": _search(int8),
            "kept_float": int8.kept_float(),
        }
    return document


def table_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the comparison as lines for a terminal, at most 78 columns wide; losses are in points."""
    labelled = any(row["box_ap"] is not None for row in document["variants"])
    heads = ("box AP", "mask AP") if labelled else ("", "agreement")
    lines = [f"{'':<9}{'size':>10}{'latency':>11}{heads[0]:>9}{heads[1]:>10}{'lost (box, mask)':>18}"]
    for row in document["variants"]:
        latency = "-" if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms"
        figures = (row["box_ap"], row["mask_ap"]) if labelled else (None, row["agreement"])
        shown = [
            f"{value:.3f}" if value is not None else "-" if head else ""
            for value, head in zip(figures, heads, strict=True)
        ]
        drop = row["drop"]
        lost = "-" if drop is None else f"{_one(drop['box'])}, {_one(drop['mask'])}"
        rejected = "  REJECTED" if row["verdict"] == "rejected" else ""
        lines.append(
            f"{row['precision']:<9}{human_size(row['size_bytes']):>10}{latency:>11}{shown[0]:>9}{shown[1]:>10}"
            f"{lost:>18}{rejected}"
        )
    return lines


def float32_lines(document: Mapping[str, Any]) -> list[str]:
    """Return lines about the float32 layers of float16 networks, one for each network and kind of reason."""
    lines = []
    for row in document["variants"]:
        nodes: Mapping[str, str] = row["float32_nodes"]
        coarse = [name for name, why in nodes.items() if why == TOO_COARSE]
        ranged = [name for name, why in nodes.items() if why != TOO_COARSE]
        for names, why in ((ranged, "their values may exceed float16"), (coarse, "float16 is too coarse")):
            if names:
                layers = f"{len(names)} layer{'s' * (len(names) != 1)}"
                lines.append(f"in float32: {row['precision']}, {layers} ({_some(names)}): {why}")
    return lines


def output_lines(document: Mapping[str, Any]) -> list[str]:
    """Return lines about the outputs of networks for engines: one for all in float16, one for each of the others."""
    lines, half, whole = [], [], 0
    for row in document["variants"]:
        why = row["float32_outputs"]
        if row["verdict"] == "rejected":
            continue
        if row["dtypes"]["outputs"] == "float16":
            half.append(row)
        elif why is not None:
            lines.append(f"outputs in float32: {row['precision']}: {why}")
        whole = max(whole, row["output_bytes"])
    if half:
        size = f"{human_size(half[0]['output_bytes'])} a frame instead of {human_size(whole)}"
        lines.insert(0, f"outputs in float16: {' and '.join(row['precision'] for row in half)}, {size}")
    return lines


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _one(interval: Sequence[float | None]) -> str:
    return "-" if interval[0] is None else f"{interval[0]:.2f}"


def _most_searched(variants: Sequence[Variant]) -> Variant:
    """Return the network that the report describes: a rejected one, else INT8, preferably the CPU's, which is timed."""
    order = ("int8-cpu", "int8", "fp16", "fp32")
    return min(variants, key=lambda variant: (variant.passed, order.index(variant.precision)))


def _variant(
    variant: Variant, latency_ms: Mapping[str, float], request: PrecisionRequest, max_drop: float
) -> dict[str, Any]:
    labelled = request.guard.annotations is not None
    is_reference = variant.precision == "fp32"
    box, mask = (variant.judgement.figures[kind] if variant.is_sound else None for kind in ("bbox", "segm"))
    latency = latency_ms.get(variant.precision)
    words = "reference" if is_reference else _held(variant, max_drop)
    return {
        "precision": variant.precision,
        "file": variant.path.name,
        "size_bytes": variant.path.stat().st_size,
        "latency_ms": None if latency is None else round(latency, 3),
        "backend": None if latency is None else f"onnxruntime-cpu, {_threads(request.num_threads)}",
        "speedup": None if latency is None else round(latency_ms["fp32"] / latency, 3),
        "box_ap": box if labelled else None,
        "mask_ap": mask if labelled else None,
        "agreement": None if labelled or is_reference else mask,
        "drop": None if is_reference else _drop(variant),
        "num_int8": 0 if variant.int8 is None else variant.int8.num_int8,
        "float32_nodes": {} if variant.half is None else dict(variant.half.kept_single),
        "dtypes": dataclasses.asdict(variant.dtypes),
        "output_bytes": variant.output_bytes,
        "float32_outputs": None if variant.half is None else variant.half.float32_outputs,
        "overflow": variant.overflow,
        "verdict": words,
    }


def _drop(variant: Variant) -> dict[str, Any] | None:
    """Return the points lost; None for a network whose outputs are not finite."""
    drop: dict[str, Any] | None = variant.judgement.document()["drop"] if variant.is_sound else None
    return drop


def _held(variant: Variant, max_drop: float) -> str:
    if not variant.passed:
        return "rejected"
    if not variant.is_sound:
        return "not judged: its outputs are not finite"
    return "kept without a limit" if math.isinf(max_drop) else "within the limit"


def _threads(count: int) -> str:
    return "threads chosen by ONNX Runtime" if count == 0 else f"{count} thread{'s' if count > 1 else ''}"


def _with_cost(entry: dict[str, Any], int8: Int8Model) -> dict[str, Any]:
    cost = int8.cost[entry["group"]]
    if cost.unit != "ms":
        return entry
    return {**entry, "ms_float": round(cost.in_float, 3), "ms_int8": round(cost.in_int8, 3)}


def _search(int8: Int8Model) -> list[dict[str, Any]]:
    total = sum(cost.in_float for cost in int8.cost.values())
    steps = int8.search.document()
    for step in steps:
        step["num_convolutions"] = int8.num_convolutions
        step["num_int8"] = int8.count(step["int8"])
        if all(cost.unit == "ms" for cost in int8.cost.values()):
            step["latency_ms"] = round(total - sum(int8.cost[group].saved for group in step["int8"]), 3)
    return steps


def _ranges(int8: Int8Model, calibration: Calibration) -> list[dict[str, Any]]:
    grid = Grid.INT8 if int8.dialect is Dialect.TENSORRT else Grid.UINT8
    rows = []
    for name, found in int8.ranges.items():
        histogram = calibration.histograms[name]
        quality = judge_range(histogram, found, grid)
        rows.append(
            {
                "tensor": name,
                "minimum": histogram.low,
                "maximum": histogram.high,
                "low": found.low,
                "high": found.high,
                "clipped": round(quality.clipped, 8),
                "sqnr_db": round(quality.sqnr_db, 2) if math.isfinite(quality.sqnr_db) else None,
                "histogram": _shown_histogram(histogram),
            }
        )
    return rows


def _shown_histogram(histogram: Any) -> dict[str, list[float]]:
    """Return equal bins for display, computed from the fine ones."""
    edges = np.linspace(histogram.low, histogram.high, _BINS_SHOWN + 1)
    if not histogram.high > histogram.low:
        return {"edges": [], "counts": []}
    below = histogram.mass().at_most(edges)
    return {"edges": [float(f"{e:.6g}") for e in edges], "counts": [round(float(c)) for c in np.diff(below)]}


def _worst(
    reference: Variant, candidate: Variant, request: PrecisionRequest, manifest: Manifest
) -> list[dict[str, Any]]:
    if candidate is reference or not candidate.is_sound:
        return []
    sheet = draw_sheet(
        candidate.judgement.agreement.images,
        request.guard.frame,
        reference.predictions,
        candidate.predictions,
        manifest.class_names,
    )
    return [{**image, "sides": [reference.precision.upper(), candidate.precision.upper()]} for image in sheet]
