"""The page on the gain and cost of lower precision: verdict, models, guard, and the layers that stayed in float.

It is drawn from a document of plain JSON types, and is self-contained. Any part of the document may be missing: its
section says so, or is left out. Drops are in AP points (1 point is an AP of 0.01), as ``[estimate, low, high]``, with
the ends of a 95 % interval; positive is a loss. The evidence has its own module,
:mod:`yolact_calibration.report.precision_evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolact_calibration.report.html_page import definitions, draw_page, figure, finite, section, text
from yolact_calibration.report.html_table import Column, table
from yolact_calibration.report.image_pairs import draw_changed_images
from yolact_calibration.report.precision_evidence import (
    draw_earlier,
    draw_ranges,
    draw_search,
    draw_sensitivity,
)
from yolact_calibration.report.precision_models import draw_models, draw_precision, draw_size
from yolact_calibration.report.provenance import draw_byline, draw_provenance

__all__ = ["draw_precision_report"]

_KINDS = ("mask", "box")


def draw_precision_report(document: Mapping[str, Any]) -> str:
    """Draw a self-contained HTML page.

    Args:
        document: JSON object with ``"name"``; ``"made"``, see :mod:`yolact_calibration.report.provenance`, or instead
            ``"created_with"`` (program -> version); ``"verdict"``; ``"variants"``, one for each model that was written,
            the reference first; ``"guard"``; ``"kept_float"``; ``"sensitivity"``, by group of layers; ``"search"``, its
            steps; ``"worst_images"``, see :func:`yolact_calibration.report.contact_sheet.draw_sheet`; ``"ranges"``, by
            tensor; ``"calibration"``.
    """
    name = document.get("name")
    title = f"Precision of {name}" if name else "Precision report"
    limit = finite(_part(document, "guard").get("max_drop"))
    made = {"versions": _part(document, "created_with"), **_part(document, "made")}
    sections = [
        f"<h1>{text(title)}</h1>",
        draw_byline(made),
        _verdict(document),
        section("Models", draw_models(_rows(document, "variants"))),
        section("Networks made earlier", draw_earlier(_rows(document, "earlier"))),
        section("Accuracy guard", _guard(_part(document, "guard"))),
        section("What stayed in float", _kept_float(document)),
        section("What stayed in float32 beside float16", _float32_layers(_rows(document, "variants"))),
        section("Inputs and outputs", _inputs_and_outputs(_rows(document, "variants"))),
        section("What each group of layers costs", draw_sensitivity(_rows(document, "sensitivity"))),
        section("Search", draw_search(_rows(document, "search"), limit)),
        section("Images whose masks changed most", draw_changed_images(document.get("worst_images"))),
        section("Ranges", draw_ranges(_rows(document, "ranges"))),
        section("Calibration", _calibration(_part(document, "calibration"))),
        draw_provenance(made),
    ]
    return draw_page(title, "\n".join(part for part in sections if part))


def _rows(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return document.get(key) or ()


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return document.get(key) or {}


def _verdict(document: Mapping[str, Any]) -> str:
    verdict = document.get("verdict")
    parts = [f'<p class="callout">{text(verdict)}</p>' if verdict else "<p>There is no verdict.</p>"]
    num_warnings = len(_part(document, "calibration").get("warnings") or ())
    if num_warnings:
        warnings = "a warning" if num_warnings == 1 else f"{num_warnings} warnings"
        parts.append(f'<p class="bad">▲ The calibration has <a href="#calibration">{warnings}</a>.</p>')
    return "".join(parts)


# --- guard, float layers, calibration ---------------------------------------------------------------------------------


def _guard(guard: Mapping[str, Any]) -> str:
    if not guard:
        return "<p>No accuracy guard ran.</p>"
    limit, passed = finite(guard.get("max_drop")), guard.get("passed")
    drop = guard.get("drop") or {}
    told = {True: '<strong class="good">✓ Passed.</strong>', False: '<strong class="bad">✗ Failed.</strong>'}
    lost = [f"the {kind} AP lost {_told_points(drop[kind])}" for kind in _KINDS if drop.get(kind)]
    lost[:1] = [f"T{one[1:]}" for one in lost[:1]]
    if limit is None:
        sentence = "The guard was off: all networks are kept, whatever they lose. "
    else:
        sentence = f"{told[passed]} " if isinstance(passed, bool) else "There is no result. "
    sentence += f"{' and '.join(lost)}; " if lost else "What was lost is not known; "
    sentence += f"{figure(limit, decimals=2)} points were allowed" if limit is not None else "no limit was set"
    sentence += f" (measured: {text(guard['measure'])})." if guard.get("measure") else "."
    if passed is True and limit is not None and any(_upper_end(drop.get(kind)) > limit for kind in _KINDS):
        sentence += " The interval reaches beyond the limit: more images would narrow it."
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
    """Draw the layers of float16 networks that compute in float32, grouped by reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in variants:
        for name, why in _part(one, "float32_nodes").items():
            groups.setdefault((str(one.get("precision")), str(why)), []).append(str(name))
    if not groups:
        return ""
    columns = [Column("Precision", is_number=False), Column("Layers"), Column("Which", is_number=False)]
    columns.append(Column("Why", is_number=False))
    rows = [
        [draw_precision(precision), figure(len(names), decimals=0), f"<code>{text(', '.join(names))}</code>", text(why)]
        for (precision, why), names in groups.items()
    ]
    return table("Layers that compute in float32 in a network of float16", columns, rows)


def _inputs_and_outputs(variants: Sequence[Mapping[str, Any]]) -> str:
    """Draw the dtypes of inputs and outputs, and why outputs of float16 networks are float32, if the report says."""
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
            draw_precision(one.get("precision")),
            *(text(one["dtypes"].get(part)) for part in ("input", "outputs")),
            draw_size(one.get("output_bytes")),
            *([text(one.get("float32_outputs") or "")] if has_reasons else []),
        ]
        for one in stated
    ]
    return table("Inputs and outputs of each network", columns, rows)


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
