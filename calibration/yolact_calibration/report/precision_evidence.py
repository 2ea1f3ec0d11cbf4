"""The evidence of a precision report: sensitivities, the search's steps, ranges of tensors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from yolact_calibration.report.bar_charts import draw_bars, draw_histogram
from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Limit, Point, Series, draw_plot
from yolact_calibration.report.html_page import MINUS, UNDEFINED, figure, finite, points, text
from yolact_calibration.report.html_table import Column, table
from yolact_plugins.files import counted

__all__ = ["draw_earlier", "draw_ranges", "draw_search", "draw_sensitivity"]

_Rows = Sequence[Mapping[str, Any]]
_KINDS = ("mask", "box")
_PARTS = ("weights", "activations")
_MEASURES: Mapping[str, str] = {"overlap": "Overlap", "mask": "Mask AP", "box": "Box AP"}
_KEPT: Mapping[Any, str] = {True: "yes", False: "undone"}
_NUM_OPEN_RANGES = 5


def draw_earlier(rows: _Rows) -> str:
    """Draw the table of networks that were in the bundle before, with their earlier verdicts; empty without any."""
    if not rows:
        return ""
    columns = [Column("Precision", is_number=False), Column("File", is_number=False)]
    columns += [
        *(Column(f"{kind.capitalize()} AP lost, points") for kind in _KINDS),
        Column("Verdict", is_number=False),
    ]
    columns.append(Column("Measured", is_number=False))
    lines = [
        [
            text(str(one.get("precision")).upper()),
            f"<code>{text(one.get('file'))}</code>",
            *(points((one.get("drop") or {}).get(kind)) for kind in _KINDS),
            text(one.get("verdict")),
            text(one.get("measure")),
        ]
        for one in rows
    ]
    return table("Kept from an earlier export; each row names what its network was judged by", columns, lines)


def draw_sensitivity(groups: _Rows) -> str:
    """Draw the cost of INT8 in each group of layers alone, as bars and as a table; empty without groups."""
    if not groups:
        return ""
    values = {
        kind: [[_lost(one, part, kind) for part in _PARTS] for one in groups]
        for kind in _MEASURES
        if any(_lost(one, part, kind) is not None for one in groups for part in _PARTS)
    }
    names = [str(one.get("group") or UNDEFINED) for one in groups]
    charts = []
    for kind, of_kind in values.items():
        axis = Axis.covering("Points lost", [value for of_group in of_kind for value in of_group], from_zero=True)
        charts.append(draw_bars(_MEASURES[kind], axis, _PARTS, list(zip(names, of_kind, strict=True))))
    lead = (
        "<p>What is lost when only this group runs in INT8: by its weights, and by its activations. Overlap is what "
        f"the instances of an image lack of full IoU, in points (100 {MINUS} 100 IoU); a missing or a new one counts "
        "100. It moves before AP does.</p>"
    )
    return f'{lead}<div class="charts">{"".join(charts)}</div>{_sensitivity_table(groups)}'


def _lost(group: Mapping[str, Any], part: str, kind: str) -> float | None:
    return finite((group.get(part) or {}).get(kind))


def _sensitivity_table(groups: _Rows) -> str:
    columns = [Column("Group", is_number=False), Column("Convolutions"), Column("GMACs")]
    columns += [Column(f"{name}, {part}") for name in _MEASURES.values() for part in _PARTS]
    columns += [Column("Float, ms"), Column("INT8, ms"), Column("Saved, ms")]
    rows = []
    for one in groups:
        row = [text(one.get("group")), figure(one.get("num_convolutions"), decimals=0), figure(one.get("gmacs"))]
        row += [figure(_lost(one, part, kind), decimals=2) for kind in _MEASURES for part in _PARTS]
        before, after = finite(one.get("ms_float")), finite(one.get("ms_int8"))
        saved = None if before is None or after is None else before - after
        rows.append([*row, figure(before), figure(after), figure(saved)])
    return table("Points lost by group, and time of its layers", columns, rows)


# --- search -----------------------------------------------------------------------------------------------------------


def draw_search(steps: _Rows, limit: float | None) -> str:
    """Draw accuracy loss and latency step by step, and the steps themselves; empty without steps.

    Args:
        steps: Steps of the search, in order.
        limit: Loss in AP points that the guard allows.
    """
    if not steps:
        return ""
    x = Axis.covering(
        "Step of the search", [_place(i, one) for i, one in enumerate(steps)], from_zero=True, is_count=True
    )
    drops = [
        Series(f"{kind} AP", _course(steps, [(one.get("drop") or {}).get(kind) for one in steps]), "steps", shift)
        for kind, shift in zip(_KINDS, (-2.5, 2.5), strict=True)
    ]
    drops = [series for series in drops if series.points]
    latency = Series("", _course(steps, [[one.get("latency_ms")] for one in steps]), "steps")
    charts = []
    if drops:
        ends = [end for one in drops for point in one.points for end in (point.y, point.low, point.high)]
        y = Axis.covering("AP points lost, 95 % interval", [*ends, limit], from_zero=True)
        allowed = None if limit is None else Limit(limit, f"allowed: {limit:g}")
        charts.append(draw_plot("Loss", x, y, drops, allowed))
    if latency.points:
        y = Axis.covering("Latency, ms an image", [point.y for point in latency.points], from_zero=True)
        charts.append(draw_plot("Latency", x, y, [latency]))
    lead = "<p>The line follows what was kept; hollow marks were tried and undone.</p>" if charts else ""
    return f'{lead}<div class="charts">{"".join(charts)}</div>{_search_table(steps)}'


def _place(index: int, step: Mapping[str, Any]) -> float:
    known = finite(step.get("step"))
    return float(index) if known is None else known


def _course(steps: _Rows, intervals: Sequence[Sequence[Any] | None]) -> list[Point]:
    course = []
    for index, (one, interval) in enumerate(zip(steps, intervals, strict=True)):
        value, low, high = [*map(finite, interval or ()), None, None, None][:3]
        if value is not None:
            course.append(Point(_place(index, one), value, low, high, is_hollow=one.get("accepted") is False))
    return course


def _search_table(steps: _Rows) -> str:
    columns = [
        Column("Step", is_number=False),
        Column("What was tried", is_number=False),
        Column("Convolutions in INT8"),
    ]
    columns += [Column(f"{kind.capitalize()} AP lost, points") for kind in _KINDS]
    columns += [Column("Latency, ms"), Column("Kept", is_number=False)]
    rows = []
    for index, one in enumerate(steps):
        share = f"{figure(one.get('num_int8'), decimals=0)} of {figure(one.get('num_convolutions'), decimals=0)}"
        row = [figure(_place(index, one), decimals=0), text(one.get("action")), share]
        row += [points((one.get("drop") or {}).get(kind)) for kind in _KINDS]
        rows.append([*row, figure(one.get("latency_ms")), _KEPT.get(one.get("accepted"), UNDEFINED)])
    summary = "The one step" if len(rows) == 1 else f"All {len(rows)} steps"
    return f"<details><summary>{summary}</summary>{table('Steps of the search', columns, rows)}</details>"


# --- ranges -----------------------------------------------------------------------------------------------------------


def draw_ranges(tensors: _Rows) -> str:
    """Draw ranges of tensors, the noisiest first: some open, the others on demand; empty without tensors."""
    if not tensors:
        return ""
    noise = [finite(one.get("sqnr_db")) for one in tensors]
    order = sorted(range(len(tensors)), key=lambda i: math.inf if (known := noise[i]) is None else known)
    known = [value for value in noise if value is not None]
    middle = f" Median: {figure(statistics.median(known), 'dB')}." if known else ""
    lead = (
        f"<p>{counted(len(tensors), 'tensor')}, the noisiest first. SQNR compares a tensor with its quantisation "
        f"noise: 6 dB is one bit.{middle} Histograms have logarithmic heights; shaded is what is clipped.</p>"
    )
    rows = [_range_row(tensors[i]) for i in order]
    parts = [lead, _range_table("Noisiest tensors", rows[:_NUM_OPEN_RANGES])]
    if rest := rows[_NUM_OPEN_RANGES:]:
        parts.append(f"<details><summary>The other {counted(len(rest), 'tensor')}</summary>")
        parts.append(f"{_range_table('The other tensors', rest)}</details>")
    return "".join(parts)


def _range_table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    columns = [Column("Tensor", is_number=False), Column("SQNR, dB"), Column("Histogram", is_number=False)]
    return table(caption, [*columns, Column("Values"), Column("Kept"), Column("Clipped")], rows)


def _range_row(tensor: Mapping[str, Any]) -> list[str]:
    histogram = tensor.get("histogram") or {}
    low, high = finite(tensor.get("low")), finite(tensor.get("high"))
    picture = draw_histogram(histogram.get("edges") or (), histogram.get("counts") or (), low, high)
    clipped = finite(tensor.get("clipped"))
    return [
        f"<code>{text(tensor.get('tensor'))}</code>",
        figure(tensor.get("sqnr_db")),
        picture or UNDEFINED,
        _span(tensor.get("minimum"), tensor.get("maximum")),
        _span(low, high),
        UNDEFINED if clipped is None else figure(100 * clipped, "%", digits=2),
    ]


def _span(low: Any, high: Any) -> str:
    return f"{figure(low)} to {figure(high)}"
