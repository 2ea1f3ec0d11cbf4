"""The page that says what lower precision brought and cost: verdict, models, guard, and what stayed in float.

A document of plain JSON types goes in, a page that stands alone comes out. Any part of the document may be missing: its
section says so, or is left out. Drops are in AP points (1 point is an AP of 0.01), as ``[estimate, low, high]``, the
ends being those of a 95 % interval; positive is a loss. The evidence has its own module,
:mod:`yolact_calibration.report.precision_evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolact_calibration.report.chart_frame import CHART_STYLE, Axis
from yolact_calibration.report.charts import Point, Series, draw_plot
from yolact_calibration.report.html_page import (
    UNDEFINED,
    Column,
    definitions,
    draw_page,
    figure,
    finite,
    made_with,
    points,
    table,
    text,
)
from yolact_calibration.report.precision_evidence import (
    SHEET_STYLE,
    draw_earlier,
    draw_images,
    draw_ranges,
    draw_search,
    draw_sensitivity,
)
from yolact_plugins.files import human_size

__all__ = ["draw_precision_report"]

_KINDS = ("mask", "box")
_SCORES = {"mask_ap": "Mask AP", "box_ap": "Box AP", "agreement": "Agreement AP"}


def draw_precision_report(document: Mapping[str, Any]) -> str:
    """A self-contained HTML page.

    Args:
        document: ``"name"``, ``"created_with"`` (program -> version), ``"made"``, see
            :func:`~yolact_calibration.report.html_page.made_with`; ``"verdict"``; ``"variants"``, one for each model
            that was written, the reference first; ``"guard"``; ``"kept_float"``; ``"sensitivity"``, by group of layers;
            ``"search"``, its steps; ``"worst_images"``, see :func:`yolact_calibration.report.contact_sheet.draw_sheet`;
            ``"ranges"``, by tensor; ``"calibration"``.
    """
    name = document.get("name")
    title = f"Precision of {name}" if name else "Precision report"
    limit = finite(_part(document, "guard").get("max_drop"))
    sections = [
        f"<h1>{text(title)}</h1>",
        _verdict(document),
        _section("Models", _models(_rows(document, "variants"))),
        _section("Networks made earlier", draw_earlier(_rows(document, "earlier"))),
        _section("Accuracy guard", _guard(_part(document, "guard"))),
        _section("What stayed in float", _kept_float(document)),
        _section("What stayed in float32 beside float16", _float32_layers(_rows(document, "variants"))),
        _section("Inputs and outputs", _inputs_and_outputs(_rows(document, "variants"))),
        _section("What each group of layers costs", draw_sensitivity(_rows(document, "sensitivity"))),
        _section("Search", draw_search(_rows(document, "search"), limit)),
        _section("Images whose masks changed most", draw_images(document.get("worst_images"))),
        _section("Ranges", draw_ranges(_rows(document, "ranges"))),
        _section("Calibration", _calibration(_part(document, "calibration"))),
        made_with(_part(document, "created_with"), _part(document, "made")),
    ]
    return draw_page(title, "\n".join(part for part in sections if part), CHART_STYLE + SHEET_STYLE)


def _rows(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return document.get(key) or ()


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return document.get(key) or {}


def _section(title: str, body: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return f'<section><h2 id="{anchor}">{text(title)}</h2>{body}</section>' if body else ""


def _verdict(document: Mapping[str, Any]) -> str:
    verdict = document.get("verdict")
    parts = [f'<p class="callout">{text(verdict)}</p>' if verdict else "<p>There is no verdict.</p>"]
    num_warnings = len(_part(document, "calibration").get("warnings") or ())
    if num_warnings:
        warnings = "a warning" if num_warnings == 1 else f"{num_warnings} warnings"
        parts.append(f'<p class="bad">▲ The calibration has <a href="#calibration">{warnings}</a>.</p>')
    return "".join(parts)


# --- models -----------------------------------------------------------------------------------------------------------


def _models(variants: Sequence[Mapping[str, Any]]) -> str:
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
        row = [_upper(one.get("precision")), f"<code>{text(one.get('file'))}</code>", _size(one.get("size_bytes"))]
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


def _upper(precision: Any) -> str:
    return text(precision.upper() if isinstance(precision, str) else precision)


def _size(size_bytes: Any) -> str:
    known = finite(size_bytes)
    return UNDEFINED if known is None else text(human_size(max(0, int(known))))


def _latency(variant: Mapping[str, Any], *, with_backend: bool) -> str:
    latency = figure(variant.get("latency_ms"))
    if finite(variant.get("latency_ms")) is None or not with_backend:
        return latency
    return f"{latency}<small>{text(variant.get('backend'))}</small>"


def _trade_off(variants: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over latency; over size where latency was not measured; nothing without two models to compare."""
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
    """Title, whether it is a loss, and value with interval of the measure that most is known of."""
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
    """An AP with the interval of its loss: more lost is lower."""
    estimate, low, high = drop
    if precision is None or estimate is None or low is None or high is None:
        return precision, None, None
    return precision, precision - (high - estimate) / 100, precision + (estimate - low) / 100


def _front(shown: Sequence[Point], is_loss: bool) -> list[Point]:
    """Those that no other one beats in both, from the fastest on."""
    front: list[Point] = []
    for point in sorted(shown, key=lambda one: (one.x, one.y if is_loss else -one.y)):
        if not front or (point.y < front[-1].y if is_loss else point.y > front[-1].y):
            front.append(Point(point.x, point.y))
    return front


def _num_known(values: Sequence[float | None]) -> int:
    return sum(value is not None for value in values)


# --- guard, float layers, calibration ---------------------------------------------------------------------------------


def _guard(guard: Mapping[str, Any]) -> str:
    if not guard:
        return "<p>No accuracy guard ran.</p>"
    limit, passed = finite(guard.get("max_drop")), guard.get("passed")
    drop = guard.get("drop") or {}
    told = {True: '<strong class="good">✓ Passed.</strong>', False: '<strong class="bad">✗ Failed.</strong>'}
    lost = [f"the {kind} AP lost {_told_points(drop[kind])}" for kind in _KINDS if drop.get(kind)]
    lost[:1] = [f"T{one[1:]}" for one in lost[:1]]
    sentence = f"{told[passed]} " if isinstance(passed, bool) else "There is no result. "
    sentence += f"{' and '.join(lost)}; " if lost else "What was lost is not known; "
    sentence += f"{figure(limit, decimals=2)} points were allowed" if limit is not None else "no limit was set"
    sentence += f" (measured: {text(guard['measure'])})." if guard.get("measure") else "."
    if passed is True and limit is not None and any(_upper_end(drop.get(kind)) > limit for kind in _KINDS):
        sentence += " The interval reaches beyond the limit: more images would tell more surely."
    return f"<p>{sentence}</p>"


def _told_points(interval: Sequence[Any]) -> str:
    estimate, low, high = [*interval, None, None, None][:3]
    told = figure(estimate, "points", decimals=2)
    if finite(low) is None or finite(high) is None:
        return told
    return f"{told} (95 % interval {figure(low, decimals=2)} to {figure(high, decimals=2)})"


def _upper_end(interval: Sequence[Any] | None) -> float:
    known = finite(interval[2]) if interval and len(interval) > 2 else None
    return float("-inf") if known is None else known


def _kept_float(document: Mapping[str, Any]) -> str:
    groups = document.get("kept_float")
    if groups is None:
        return ""
    if not groups:
        return "<p>No group was kept in float for its accuracy.</p>"
    columns = [Column("Group", is_number=False), Column("Convolutions"), Column("Why", is_number=False)]
    rows = [
        [text(one.get("group")), figure(one.get("convolutions"), decimals=0), text(one.get("why"))] for one in groups
    ]
    return table("Groups of layers that INT8 does not reach", columns, rows)


def _float32_layers(variants: Sequence[Mapping[str, Any]]) -> str:
    """Layers of float16 networks that compute in float32, those with the same reason together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in variants:
        for name, why in _part(one, "float32_nodes").items():
            groups.setdefault((str(one.get("precision")), str(why)), []).append(str(name))
    if not groups:
        return ""
    columns = [Column("Precision", is_number=False), Column("Layers"), Column("Which", is_number=False)]
    columns.append(Column("Why", is_number=False))
    rows = [
        [_upper(precision), figure(len(names), decimals=0), f"<code>{text(', '.join(names))}</code>", text(why)]
        for (precision, why), names in groups.items()
    ]
    return table("Layers that compute in float32 in a network of float16", columns, rows)


def _inputs_and_outputs(variants: Sequence[Mapping[str, Any]]) -> str:
    """Dtypes of each network's tensors, and why outputs of a float16 network are float32; of reports that say them."""
    stated = [one for one in variants if one.get("dtypes")]
    if not any("float16" in {*one["dtypes"].values()} or one.get("float32_outputs") for one in stated):
        return ""
    columns = [
        Column("Precision", is_number=False),
        Column("Input", is_number=False),
        Column("Outputs", is_number=False),
    ]
    columns.append(Column("Outputs of a frame"))
    has_reasons = any(one.get("float32_outputs") for one in stated)
    if has_reasons:
        columns.append(Column("Why not float16", is_number=False))
    rows = [
        [
            _upper(one.get("precision")),
            *(text(one["dtypes"].get(part)) for part in ("input", "outputs")),
            _size(one.get("output_bytes")),
            *([text(one.get("float32_outputs") or "")] if has_reasons else []),
        ]
        for one in stated
    ]
    return table("What each network is given, and what it hands over", columns, rows)


def _calibration(calibration: Mapping[str, Any]) -> str:
    if not calibration:
        return ""
    entries = [
        ("Images", figure(calibration.get("num_images"), decimals=0)),
        ("Method", text(calibration.get("method"))),
    ]
    if calibration.get("from_cache"):
        entries.append(("Time", "none: taken from the cache"))
    else:
        entries.append(("Time", figure(calibration.get("seconds"), "s")))
    if calibration.get("digest"):
        entries.append(("Digest", f"<code>{text(calibration['digest'])}</code>"))
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in calibration.get("warnings") or ())
    return definitions(entries) + (f'<p class="bad">▲ Warnings</p><ul>{warnings}</ul>' if warnings else "")
