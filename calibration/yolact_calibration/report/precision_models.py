"""The models of a precision report: a table of what each costs and brings, and a chart of accuracy over latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Point, Series, draw_plot
from yolact_calibration.report.html_page import UNDEFINED, figure, finite, points, text
from yolact_calibration.report.html_table import Column, table
from yolact_plugins.files import human_size

__all__ = ["draw_models", "draw_precision", "draw_size"]

_KINDS = ("mask", "box")
_SCORES = {"mask_ap": "Mask AP", "box_ap": "Box AP", "agreement": "Agreement AP"}


def draw_models(variants: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all models, and accuracy over latency, as HTML.

    Args:
        variants: Entries ``"variants"`` of a precision report, the reference first.
    """
    if not variants:
        return "<p>No model was written.</p>"
    measured = [one for one in variants if finite(one.get("latency_ms")) is not None]
    backends = {str(one.get("backend") or "an unknown backend") for one in measured}
    columns = [Column("Precision", is_number=False), Column("File", is_number=False), Column("Size")]
    columns += [Column("Latency, ms an image"), Column("Speed-up"), *(Column(title) for title in _SCORES.values())]
    columns += [
        *(Column(f"{kind.capitalize()} AP lost, points") for kind in _KINDS),
        Column("Verdict", is_number=False),
    ]
    rows = []
    for one in variants:
        row = [
            draw_precision(one.get("precision")),
            f"<code>{text(one.get('file'))}</code>",
            draw_size(one.get("size_bytes")),
        ]
        row += [_latency(one, with_backend=len(backends) > 1)]
        row += [figure(one.get("speedup"), "\N{MULTIPLICATION SIGN}", decimals=2)]
        row += [figure(one.get(key), decimals=3) for key in _SCORES]
        row += [points((one.get("drop") or {}).get(kind)) for kind in _KINDS]
        overflow = one.get("overflow")
        where = f"<small>it overflows: {text(overflow)}</small>" if overflow else ""
        rows.append([*row, text(one.get("verdict")) + where])
    caption = f"Latency measured with {' and '.join(sorted(backends))}." if backends else "Latency was not measured."
    if any(one.get("drop") for one in variants):
        caption += " A point is an AP of 0.01; the small figures are the 95 % interval; a negative loss is a gain."
    return table(caption, columns, rows) + _trade_off(variants)


def draw_precision(precision: Any) -> str:
    """Return a precision as pages write it, such as ``INT8-CPU``; HTML."""
    return text(precision.upper() if isinstance(precision, str) else precision)


def draw_size(size_bytes: Any) -> str:
    """Return a size in bytes in readable form; HTML."""
    known = finite(size_bytes)
    return UNDEFINED if known is None else text(human_size(max(0, int(known))))


def _latency(variant: Mapping[str, Any], *, with_backend: bool) -> str:
    latency = figure(variant.get("latency_ms"))
    if finite(variant.get("latency_ms")) is None or not with_backend:
        return latency
    return f"{latency}<small>{text(variant.get('backend'))}</small>"


def _trade_off(variants: Sequence[Mapping[str, Any]]) -> str:
    """Plot accuracy over latency, or over size if latency was not measured; empty for fewer than two models."""
    places = {
        "Latency, ms an image": [finite(one.get("latency_ms")) for one in variants],
        "Size, MB": [None if (size := finite(one.get("size_bytes"))) is None else size / 1e6 for one in variants],
    }
    across = next((title for title, values in places.items() if _num_known(values) > 1), None)
    accuracy = _accuracy(variants)
    if across is None or accuracy is None:
        return ""
    title, is_loss, heights = accuracy
    shown = [
        Point(x, y, low, high, str(one.get("precision") or "").upper())
        for one, x, (y, low, high) in zip(variants, places[across], heights, strict=True)
        if x is not None and y is not None
    ]
    if len(shown) < 2:
        return ""
    ends = [end for point in shown for end in (point.y, point.low, point.high)]
    x_axis = Axis.covering(across, [point.x for point in shown], from_zero=True)
    y_axis = Axis.covering(title, ends, from_zero=is_loss)
    series = [Series("model", shown, "points"), Series("best trade-off", _front(shown, is_loss), "front")]
    heading = (
        f"Accuracy and {across.split(',')[0].lower()}: {'lower' if is_loss else 'higher'} and further left is better"
    )
    return draw_plot(heading, x_axis, y_axis, series)


_Height = tuple[float | None, float | None, float | None]


def _accuracy(variants: Sequence[Mapping[str, Any]]) -> tuple[str, bool, list[_Height]] | None:
    """Return title, whether it is a loss, and values with intervals, of the measure that most models have."""
    drops = [[*map(finite, ((one.get("drop") or {}).get("mask") or ())), None, None, None][:3] for one in variants]
    masks = [finite(one.get("mask_ap")) for one in variants]
    if _num_known(masks) > 1:
        return "Mask AP, 95 % interval of the loss", False, list(map(_around, masks, drops))
    if any(drop[0] is not None for drop in drops):
        is_reference = [one.get("drop") is None and one.get("verdict") == "reference" for one in variants]
        heights: list[_Height] = [
            (0.0, None, None) if whole else (drop[0], drop[1], drop[2])
            for whole, drop in zip(is_reference, drops, strict=True)
        ]
        return "Mask AP lost, points, 95 % interval", True, heights
    agreements = [finite(one.get("agreement")) for one in variants]
    if _num_known(agreements) > 1:
        return "Agreement AP", False, [(value, None, None) for value in agreements]
    return None


def _around(precision: float | None, drop: Sequence[float | None]) -> _Height:
    """Return an AP with the interval that follows from its loss: a larger loss is a lower AP."""
    estimate, low, high = drop
    if precision is None or estimate is None or low is None or high is None:
        return precision, None, None
    return precision, precision - (high - estimate) / 100, precision + (estimate - low) / 100


def _front(shown: Sequence[Point], is_loss: bool) -> list[Point]:
    """Return the points that no other point beats in both, from the fastest on."""
    front: list[Point] = []
    for point in sorted(shown, key=lambda one: (one.x, one.y if is_loss else -one.y)):
        if not front or (point.y < front[-1].y if is_loss else point.y > front[-1].y):
            front.append(Point(point.x, point.y))
    return front


def _num_known(values: Sequence[float | None]) -> int:
    return sum(value is not None for value in values)
