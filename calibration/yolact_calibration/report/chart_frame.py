"""Parts that all charts share: size and style, axes with round numbers, and the figure with its heading and legend.

A chart is as wide as a phone shows with readable letters; a page sets two side by side if there is room. Colours come
from :mod:`yolact_calibration.report.stylesheet`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from yolact_calibration.report.chart_text import draw_label, text_width
from yolact_calibration.report.html_page import MINUS, figure, finite, text

__all__ = [
    "CHART_WIDTH",
    "MARGIN_BOTTOM",
    "MARGIN_RIGHT",
    "NUM_COLOURS",
    "Axis",
    "draw_figure",
    "draw_lower_side",
    "draw_nothing",
]

CHART_WIDTH = 480
MARGIN_RIGHT, MARGIN_BOTTOM = 18, 46
_LABEL_GAP_PX = 8
NUM_COLOURS = 6
_NUM_STRETCHES = 7
"""Maximum number of intervals between ticks."""
_MAX_DECADES = 8
_SMALLEST = 1e-30
"""Smallest magnitude and range that a chart resolves; smaller values are drawn as zero."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One side of a plot.

    Attributes:
        title: Title with the unit.
        low: Value at its beginning.
        high: Value at its end, above `low`.
        ticks: Values that are labelled.
        is_logarithmic: Whether the scale is logarithmic.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    is_logarithmic: bool = False

    @classmethod
    def covering(
        cls, title: str, values: Iterable[float | None], *, from_zero: bool = False, is_count: bool = False
    ) -> Axis:
        """Create an axis that covers all values, between round numbers.

        Args:
            title: Title with the unit.
            values: Values to cover; undefined ones are ignored.
            from_zero: If True, include zero.
            is_count: If True, ticks are whole numbers.
        """
        known = [number for number in map(finite, values) if number is not None] or [0.0]
        low, high = min(known), max(known)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low <= max(_SMALLEST, 1e-9 * max(abs(low), abs(high))):
            margin = abs(high) / 4 if abs(high) > _SMALLEST else 1.0
            low, high = low - (0.0 if from_zero else margin), high + margin
        step = _round_up((high - low) / _NUM_STRETCHES)
        if is_count:
            step = max(step, 1.0)
        # The small numbers keep a bound that is a tick but for rounding from taking another tick with it.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(i * step for i in range(first, max(last, first + 1) + 1))
        return cls(title, ticks[0], ticks[-1], ticks)

    @classmethod
    def logarithmic(cls, title: str, values: Iterable[float | None]) -> Axis:
        """Create an axis of whole decades around the positive values."""
        known = [number for number in map(finite, values) if number is not None and number > _SMALLEST] or [1.0]
        first, last = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
        last = max(last, first + 1)
        stride = -(-(last - first) // _MAX_DECADES)
        ticks = tuple(10.0**i for i in range(first, last + 1, stride))
        return cls(title, 10.0**first, 10.0**last, ticks, is_logarithmic=True)

    def place(self, value: float) -> float:
        """Return the position of a value, 0 at the beginning and 1 at the end.

        Values beyond an end are clamped to it.
        """
        value = max(self.low, min(self.high, value))
        if self.is_logarithmic:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Return the ticks as HTML text, all with the same number of decimals."""
        if self.is_logarithmic:
            return [text(f"{tick:g}".replace("-", MINUS)) for tick in self.ticks]
        magnitude = math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9)
        largest = max(abs(self.low), abs(self.high))
        if 1e-4 <= largest < 1e7:
            return [figure(tick, decimals=max(0, -magnitude)) for tick in self.ticks]
        digits = math.floor(math.log10(largest)) - magnitude
        # A tick at zero is not exactly zero if the step is not a binary fraction.
        rounded = [0.0 if abs(tick) < largest * 1e-9 else tick for tick in self.ticks]
        return [text(f"{tick:.{digits}e}".replace("-", MINUS) if tick else "0") for tick in rounded]


def _round_up(step: float) -> float:
    """Return the next number that is 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= step * (1 - 1e-9))


def draw_nothing(title: str, values: Iterable[float | None]) -> str:
    """Return the replacement of a chart that would be empty, or an empty string if there is something to show.

    Args:
        title: Heading, plain text.
        values: All values of the chart; undefined ones are None.
    """
    known = {number for number in map(finite, values) if number is not None}
    if any(abs(number) > _SMALLEST for number in known):
        return ""
    why = "every value is 0" if known else "there is no value"
    line = f'<p class="faint">Nothing to show: {why}.</p>'
    return f'<figure class="chart"><figcaption>{text(title)}</figcaption>{line}</figure>'


def draw_figure(title: str, legend: Sequence[tuple[str, str]], description: str, height: float, content: str) -> str:
    """Draw a chart with its heading.

    Args:
        title: Heading, plain text.
        legend: Names, plain text, and their SVG swatches.
        description: Text for screen readers, plain text.
        height: Height of the picture, which is :data:`CHART_WIDTH` wide.
        content: Picture, as SVG elements.
    """
    items = "".join(f"<li>{swatch}{text(name)}</li>" for name, swatch in legend)
    return (
        f'<figure class="chart"><figcaption>{text(title)}</figcaption>'
        + (f'<ul class="legend">{items}</ul>' if items else "")
        + f'<svg viewBox="0 0 {CHART_WIDTH} {height:.0f}" role="img"><title>{text(description)}</title>'
        + f"{content}</svg></figure>"
    )


def draw_lower_side(axis: Axis, across: Callable[[float], float], left: float, bottom: float) -> str:
    """Return the axis line, as many tick labels as fit, and the title.

    Args:
        axis: The lower side.
        across: Function from a value to a position in pixels.
        left: Left end of the axis, in pixels.
        bottom: Vertical position of the axis, in pixels.
    """
    labels = axis.labels()
    room = (CHART_WIDTH - left - MARGIN_RIGHT) / max(1, len(labels) - 1)
    stride = max(1, math.ceil((max(map(text_width, labels)) + _LABEL_GAP_PX) / room))
    parts = [
        f'<line class="axis" x1="{left:.1f}" x2="{CHART_WIDTH - MARGIN_RIGHT}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>'
    ]
    taken = 0.0
    for tick, label in list(zip(axis.ticks, labels, strict=True))[::stride]:
        x, half = across(tick), text_width(label) / 2
        # A long label at either end would be cut off.
        middle = max(half + 2, min(x, CHART_WIDTH - 2 - half))
        if middle - half < taken:
            continue
        taken = middle + half + _LABEL_GAP_PX
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 4:.1f}"/>')
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 20:.1f}" text-anchor="middle">{label}</text>')
    # Centred on the axis; a title wider than that would reach beyond the picture.
    middle = (left + CHART_WIDTH - MARGIN_RIGHT) / 2
    half = min(text_width(axis.title), CHART_WIDTH - 4) / 2
    middle = max(half + 2, min(middle, CHART_WIDTH - 2 - half))
    return "".join(parts) + draw_label(axis.title, middle, bottom + 40, CHART_WIDTH - 4, "middle")
