"""The stages of a frame, one after the other, as inline SVG: start and duration of each."""

from __future__ import annotations

from collections.abc import Sequence

from yolact_calibration.report.chart_frame import (
    CHART_WIDTH,
    MARGIN_BOTTOM,
    MARGIN_RIGHT,
    Axis,
    draw_figure,
    draw_lower_side,
)
from yolact_calibration.report.chart_text import draw_label, shortened, text_width
from yolact_calibration.report.html_page import figure, plain_text, text

__all__ = ["draw_waterfall"]

_ROW_PX, _BAR_PX, _TOP_PX = 30, 18, 6
_MAX_NAME_PX = 150
"""Maximum width of a stage's name beside the bars; longer names are shortened."""
_FIGURE_GAP_PX = 5
"""Distance between a bar and its figure."""


def draw_waterfall(title: str, stages: Sequence[tuple[str, float]]) -> str:
    """Draw a chart with a bar for each stage, which begins where the previous one ends.

    Args:
        title: Heading, plain text.
        stages: Name and milliseconds of each stage, in the order of the frame.
    """
    total = sum(ms for _, ms in stages)
    axis = Axis.covering("ms since the frame arrived", [0.0, total], from_zero=True)
    left = 10 + max((text_width(shortened(plain_text(name), _MAX_NAME_PX)) for name, _ in stages), default=0)
    # The figure of the last bar is drawn to its right.
    room_right = _FIGURE_GAP_PX + max((text_width(f"{figure(ms)} ms") for _, ms in stages), default=0)
    bottom = _TOP_PX + _ROW_PX * len(stages)

    def across(value: float) -> float:
        return left + (CHART_WIDTH - left - MARGIN_RIGHT - room_right) * axis.place(value)

    parts = [f'<path class="grid" d="{"".join(f"M{across(tick):.1f} 4V{bottom:.1f}" for tick in axis.ticks)}"/>']
    begun = 0.0
    for number, (name, ms) in enumerate(stages):
        top = _TOP_PX + _ROW_PX * number + (_ROW_PX - _BAR_PX) / 2
        start, end = across(begun), across(begun + ms)
        share = f"{ms / total:.0%}" if total else ""
        note = f"<title>{text(name)}: {figure(ms)} ms, {share} of the frame</title>"
        parts.append(draw_label(name, left - 8, top + 14, _MAX_NAME_PX, "end"))
        parts.append(
            f'<rect class="bar c0" x="{start:.1f}" y="{top:.1f}" '
            f'width="{max(end - start, 1.5):.1f}" height="{_BAR_PX}">{note}</rect>'
        )
        parts.append(f'<text x="{end + _FIGURE_GAP_PX:.1f}" y="{top + 14:.1f}">{figure(ms)} ms</text>')
        begun += ms
    parts.append(draw_lower_side(axis, across, left, bottom))
    description = f"{title}: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in stages)
    return draw_figure(title, [], description, bottom + MARGIN_BOTTOM, "".join(parts))
