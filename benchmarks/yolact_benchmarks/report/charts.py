"""Charts of a record of ``yolact-bench``: distributions, stages, the machine over time, accuracy over latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolact_benchmarks.report.waterfall import draw_waterfall
from yolact_calibration.report.bar_charts import draw_bars
from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Limit, Point, Series, draw_plot
from yolact_calibration.report.html_page import finite

__all__ = ["draw_blocks", "draw_distributions", "draw_history", "draw_machine", "draw_pareto", "draw_stages"]

Case = Mapping[str, Any]
_MAX_SERIES = 6
"""Maximum number of series in a chart, which is the number of colours."""
_MAX_POINTS = 240
_LONG_GAP = 3.0
"""Gap between two readings, in multiples of the median gap, above which the line is interrupted."""
_TAIL = 99.5
"""Percentile at which the chart of a distribution ends: a single frame of a second would squeeze all the others."""


def draw_distributions(cases: Sequence[Case]) -> str:
    """Draw a chart for each network and size: the share of frames that took no longer than a given time."""
    return "".join(
        draw_plot(
            f"Latency, {title}",
            Axis.covering("ms a frame", [_at(case, 0.0) for case in some] + [_at(case, _TAIL) for case in some]),
            Axis("share of frames that took no longer, %", 0.0, 100.0, (0.0, 25.0, 50.0, 75.0, 100.0)),
            [Series(_told(case), _distribution(case)) for case in some],
        )
        for title, some in _grouped(cases)
    )


def draw_history(cases: Sequence[Case]) -> str:
    """Draw a chart for each network and size: latency frame by frame over the time of the measurement."""
    figures = []
    for title, some in _grouped(cases):
        series = [Series(_told(case), _history(case)) for case in some]
        points = [point for one in series for point in one.points]
        x = Axis.covering("seconds since the measurement began", [p.x for p in points], from_zero=True)
        y = Axis.covering("ms a frame", [p.y for p in points], from_zero=True)
        figures.append(draw_plot(f"Over time, {title}", x, y, series))
    return "".join(figures)


def draw_stages(cases: Sequence[Case]) -> str:
    """Draw a waterfall of each configuration's median stages, those on the GPU if they were measured."""
    figures = []
    for case in cases:
        clock = "device" if any(stage["clock"] == "device" for stage in case["stages"]) else "wall"
        stages = [(s["name"], s["median_ms"]) for s in case["stages"] if s["clock"] == clock and s["median_ms"]]
        if stages:
            where = ", on the GPU" if clock == "device" else ""
            title = f"{case['precision']}, {case['frames']['name']}, {_told(case)}{where}"
            figures.append(draw_waterfall(title, stages))
    return "".join(figures)


def draw_machine(samples: Sequence[Mapping[str, Any]]) -> str:
    """Draw the machine's state over time, a chart for each figure that was read more than once."""
    shown = (
        ("other_load", "Load of other processes", "share of all cores, %", 100.0),
        ("yardstick_ms", "A fixed piece of work", "ms", 1.0),
        ("parallel_yardstick_ms", "The same on all cores at once", "ms", 1.0),
        ("clock_mhz", "Clock", "MHz", 1.0),
        ("temperature_c", "Temperature", "°C", 1.0),
    )
    figures = [
        _over_time(title, unit, [(one["seconds"], finite(one.get(key))) for one in samples], factor)
        for key, title, unit, factor in shown
    ]
    gpu = [(one["seconds"], one.get("gpu") or {}) for one in samples]
    for key, title, unit in (
        ("clock_mhz", "GPU clock", "MHz"),
        ("temperature_c", "GPU temperature", "°C"),
        ("power_w", "GPU power", "W"),
    ):
        figures.append(_over_time(title, unit, [(seconds, finite(one.get(key))) for seconds, one in gpu], 1.0))
    return "".join(figures)


def draw_pareto(models: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> str:
    """Draw accuracy over latency of all networks of a bundle; return an empty string if fewer than two have both."""
    points = []
    measure = ""
    for model in models:
        accuracy = model.get("accuracy")
        latency = [case["latency"] for case in cases if case["precision"] == model["precision"]]
        if accuracy is None or not latency or accuracy["mask"][0] is None:
            continue
        measure = accuracy["measure"]
        estimate, low, high = accuracy["mask"]
        points.append(Point(latency[-1]["percentiles_ms"]["p50"], estimate, low, high, model["precision"]))
    if len(points) < 2:
        return ""
    x = Axis.covering("median, ms a frame", [point.x for point in points], from_zero=True)
    y = Axis.covering(f"mask {measure}, 95 % interval", [end for p in points for end in (p.y, p.low, p.high)])
    front = [point for point in sorted(points, key=lambda p: (p.x, -p.y)) if not _is_beaten(point, points)]
    series = [Series("network", points, "points"), Series("best trade-off", [Point(p.x, p.y) for p in front], "front")]
    return draw_plot("Accuracy and speed: higher and further left is better", x, y, series)


def draw_blocks(layers: Mapping[str, Any]) -> str:
    """Draw the time of each part of the network, by precision."""
    profiles = {name: one for name, one in layers.items() if "blocks" in one}
    if not profiles:
        return ""
    names = list(dict.fromkeys(block["name"] for one in profiles.values() for block in one["blocks"]))
    times = {name: {block["name"]: block["ms"] for block in one["blocks"]} for name, one in profiles.items()}
    groups = [(block, [times[name].get(block) for name in profiles]) for block in names]
    axis = Axis.covering("ms a frame", [ms for _, values in groups for ms in values], from_zero=True)
    return draw_bars("Time by part of the network", axis, list(profiles), groups)


def _is_beaten(point: Point, points: Sequence[Point]) -> bool:
    return any(other.x <= point.x and other.y >= point.y and other is not point for other in points)


def _grouped(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    """Group configurations by network and size, at most as many in a group as there are colours."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(f"{case['precision']}, {case['frames']['name']}", []).append(case)
    return [
        (title, some[first : first + _MAX_SERIES])
        for title, some in groups.items()
        for first in range(0, len(some), _MAX_SERIES)
    ]


def _told(case: Case) -> str:
    count = case["instances"]
    return "instances as found" if count == "found" else f"{count} instance{'' if count == 1 else 's'}"


def _at(case: Case, percentile: float) -> float:
    return float(np.percentile(case["samples_ms"], percentile))


def _distribution(case: Case) -> list[Point]:
    shares = np.linspace(0, _TAIL, min(_MAX_POINTS, max(2, len(case["samples_ms"]))))
    values = np.percentile(case["samples_ms"], shares)
    return [Point(float(ms), float(share)) for ms, share in zip(values, shares, strict=True)]


def _history(case: Case) -> list[Point]:
    """Reduce a series to a limited number of points.

    They are the median and the maximum of each segment, so that no long frame is lost.
    """
    ms, seconds = np.asarray(case["samples_ms"]), np.asarray(case["seconds"])
    points: list[Point] = []
    processes = np.split(np.arange(len(ms)), np.cumsum(case.get("processes", [len(ms)]))[:-1])
    for process in processes:
        if points and len(process):
            points.append(_break(points[-1].x))
        for part in np.array_split(process, min(len(process), max(1, _MAX_POINTS // 2 // len(processes)))):
            points.append(Point(float(seconds[part[0]]), float(np.median(ms[part]))))
            if len(part) > 1:
                points.append(Point(float(seconds[part[-1]]), float(ms[part].max())))
    return points


def _broken(points: Sequence[Point]) -> list[Point]:
    """Interrupt the line where nothing was measured, as between two processes."""
    gaps = np.diff([point.x for point in points])
    longest = _LONG_GAP * float(np.median(gaps))
    broken = [points[0]]
    for gap, point in zip(gaps.tolist(), points[1:], strict=True):
        broken += [_break(broken[-1].x), point] if gap > longest else [point]
    return broken


def _break(x: float) -> Point:
    """Return a point at which a line ends, and another one begins."""
    return Point(x, math.nan)


def _over_time(title: str, unit: str, values: Sequence[tuple[float, float | None]], factor: float) -> str:
    points = [Point(seconds, value * factor) for seconds, value in values if value is not None]
    if len(points) < 2:
        return ""
    points = _broken(points)
    x = Axis.covering("seconds since the measurement began", [point.x for point in points], from_zero=True)
    y = Axis.covering(unit, [point.y for point in points], from_zero=True)
    limit = Limit(10.0, "more is unstable") if title == "Load of other processes" and y.high > 10 else None
    return draw_plot(title, x, y, [Series("", points)], limit)
