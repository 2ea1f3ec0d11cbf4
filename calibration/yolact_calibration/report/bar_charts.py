"""Bars as inline SVG: horizontal ones in groups, and histograms so small that a table holds one in every row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from yolact_calibration.report.chart_frame import (
    CHART_WIDTH,
    MARGIN_BOTTOM,
    MARGIN_RIGHT,
    NUM_COLOURS,
    Axis,
    draw_figure,
    draw_lower_side,
    draw_nothing,
)
from yolact_calibration.report.chart_text import draw_label, shortened, text_width
from yolact_calibration.report.html_page import figure, finite, plain_text, text

__all__ = ["draw_bars", "draw_histogram"]

_BAR_PX, _GROUP_GAP_PX = 11, 9
_MAX_NAME_PX = 150
"""Width of the names beside the bars; longer names are shortened."""
_SMALL_WIDTH, _SMALL_HEIGHT, _MAX_BINS = 160, 34, 48
_Bin = tuple[float, float, float]
"""Bounds and height of a bin: from, to, height."""


def draw_bars(
    title: str, axis: Axis, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float | None]]]
) -> str:
    """Draw horizontal bars from zero, as a figure.

    Args:
        title: Heading, plain text.
        axis: The lower side, which includes zero.
        names: Names of the bars of a group, one for each.
        groups: Names and values of the groups; an undefined value has no bar.

    Returns:
        HTML figure; if every bar would have zero length, it holds a line that says so.
    """
    if nothing := draw_nothing(title, [value for _, values in groups for value in values]):
        return nothing
    left = 10 + max(text_width(shortened(plain_text(name), _MAX_NAME_PX)) for name, _ in groups)
    row = len(names) * _BAR_PX + _GROUP_GAP_PX
    bottom = 6.0 + row * len(groups)

    def across(value: float) -> float:
        return left + (CHART_WIDTH - left - MARGIN_RIGHT) * axis.place(value)

    parts = [f'<path class="grid" d="{"".join(f"M{across(tick):.1f} 4V{bottom:.1f}" for tick in axis.ticks)}"/>']
    for number, (name, values) in enumerate(groups):
        top = 6 + _GROUP_GAP_PX / 2 + row * number
        parts.append(draw_label(name, left - 8, top + len(names) * _BAR_PX / 2 + 4, _MAX_NAME_PX, "end"))
        for index, value in enumerate(values):
            known = finite(value)
            if known is not None:
                ends = sorted((across(0.0), across(known)))
                # A bar of no length still shows that there is a value.
                shape = f'x="{ends[0]:.1f}" y="{top + index * _BAR_PX:.1f}" width="{max(ends[1] - ends[0], 1):.1f}"'
                note = f"<title>{text(name)}, {text(names[index])}: {figure(known)}</title>"
                parts.append(f'<rect class="bar c{index % NUM_COLOURS}" {shape} height="{_BAR_PX - 2}">{note}</rect>')
    parts.append(f'<path class="axis" d="M{across(0.0):.1f} 4V{bottom:.1f}"/>')
    parts.append(draw_lower_side(axis, across, left, bottom))
    legend = [(name, _bar_swatch(index)) for index, name in enumerate(names)]
    return draw_figure(title, legend, f"{title}: {axis.title}", bottom + MARGIN_BOTTOM, "".join(parts))


def _bar_swatch(index: int) -> str:
    return (
        f'<svg class="c{index % NUM_COLOURS}" viewBox="0 0 30 12" aria-hidden="true">'
        f'<rect class="bar c{index % NUM_COLOURS}" x="6" y="1" width="22" height="10"/></svg>'
    )


def draw_histogram(edges: Sequence[float], counts: Sequence[float], low: float | None, high: float | None) -> str:
    """Draw a small histogram with its clipping range. Heights are logarithmic, because most values are near zero.

    Args:
        edges: Ascending bin edges, one more than there are counts.
        counts: Number of values in each bin.
        low: Lower bound of the range that is kept.
        high: Upper bound of that range.

    Returns:
        SVG image, or an empty string if there is nothing to draw.
    """
    bins = _merged_bins(edges, counts)
    if not bins:
        return ""
    first, last = bins[0][0], bins[-1][1]
    highest = math.log1p(max(height for _, _, height in bins)) or 1.0

    def across(value: float) -> float:
        return _SMALL_WIDTH * (max(first, min(last, value)) - first) / (last - first)

    path = []
    for begin, end, height in bins:
        if height > 0:
            left, right = across(begin), across(end)
            size = max(0.8, (_SMALL_HEIGHT - 1) * math.log1p(height) / highest)
            path.append(f"M{left:.1f} {_SMALL_HEIGHT}v-{size:.1f}H{right:.1f}v{size:.1f}")
    marks = "".join(
        _clip_mark(across(value), is_low) for value, is_low in ((low, True), (high, False)) if value is not None
    )
    note = f"from {figure(first)} to {figure(last)}, kept {figure(low)} to {figure(high)}"
    return (
        f'<svg class="histogram" viewBox="-1 0 {_SMALL_WIDTH + 2} {_SMALL_HEIGHT}" role="img"><title>Histogram '
        f'{note}</title><path class="bar" d="{"".join(path)}"/>{marks}</svg>'
    )


def _merged_bins(edges: Sequence[float], counts: Sequence[float]) -> list[_Bin]:
    """Merge neighbouring bins so that the page stays small; heights are comparable where widths differ.

    If the counts do not belong to the edges, or the edges do not ascend, there are no bins.
    """
    known, heights = [finite(edge) for edge in edges], [finite(count) or 0.0 for count in counts]
    bounds = [edge for edge in known if edge is not None]
    if not heights or len(bounds) != len(heights) + 1 or len(known) != len(bounds):
        return []
    if any(after <= before for before, after in itertools.pairwise(bounds)):
        return []
    stride = -(-len(heights) // _MAX_BINS)
    usual = (bounds[-1] - bounds[0]) / len(heights) * stride
    bins = []
    for first in range(0, len(heights), stride):
        last = min(first + stride, len(heights))
        begin, end = bounds[first], bounds[last]
        bins.append((begin, end, sum(heights[first:last]) * usual / (end - begin)))
    return bins


def _clip_mark(x: float, is_low: bool) -> str:
    """Draw a line where values are clipped, and a shade over the clipped range."""
    left, width = (0.0, x) if is_low else (x, _SMALL_WIDTH - x)
    shade = f'<rect class="cut" x="{left:.1f}" y="0" width="{width:.1f}" height="{_SMALL_HEIGHT}"/>' if width else ""
    return f'{shade}<path class="clip" d="M{x:.1f} 0v{_SMALL_HEIGHT}"/>'
