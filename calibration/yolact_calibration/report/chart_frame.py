"""What all charts share: their size and style, axes with round numbers, and the figure with its heading and legend.

A chart is as wide as a phone shows with readable letters; a page sets two beside each other where there is room.
Colours come from :mod:`yolact_calibration.report.stylesheet`.
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
"""At most so many lie between the ticks."""
_MAX_DECADES = 8
_SMALLEST = 1e-30
"""Below it nothing is told apart: what is smaller is drawn as if it were zero."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One side of a plot.

    Attributes:
        title: With the unit.
        low: Value at its beginning.
        high: Value at its end, above `low`.
        ticks: Values that are written beside it.
        is_logarithmic: Equal factors are equally long.
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
        """An axis from and to round numbers, with all values between them.

        Args:
            title: With the unit.
            values: Undefined ones are left out.
            from_zero: Zero is on it too.
            is_count: Ticks are whole numbers.
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
        """An axis of whole decades around the positive values."""
        known = [number for number in map(finite, values) if number is not None and number > _SMALLEST] or [1.0]
        first, last = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
        last = max(last, first + 1)
        stride = -(-(last - first) // _MAX_DECADES)
        ticks = tuple(10.0**i for i in range(first, last + 1, stride))
        return cls(title, 10.0**first, 10.0**last, ticks, is_logarithmic=True)

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the beginning and 1 at the end; what is beyond an end lies on it."""
        value = max(self.low, min(self.high, value))
        if self.is_logarithmic:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """The ticks as HTML text, all with as many decimals."""
        if self.is_logarithmic:
            return [text(f"{tick:g}".replace("-", MINUS)) for tick in self.ticks]
        magnitude = math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9)
        largest = max(abs(self.low), abs(self.high))
        if 1e-4 <= largest < 1e7:
            return [figure(tick, decimals=max(0, -magnitude)) for tick in self.ticks]
        digits = math.floor(math.log10(largest)) - magnitude
        # A tick at zero is not exactly zero where the step is no binary fraction.
        rounded = [0.0 if abs(tick) < largest * 1e-9 else tick for tick in self.ticks]
        return [text(f"{tick:.{digits}e}".replace("-", MINUS) if tick else "0") for tick in rounded]


def _round_up(step: float) -> float:
    """The next of 1, 2, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= step * (1 - 1e-9))


def draw_nothing(title: str, values: Iterable[float | None]) -> str:
    """What stands in the place of a chart that would be empty; empty where there is something to show.

    Args:
        title: Heading, plain text.
        values: All that the chart would show; undefined ones are None.
    """
    known = {number for number in map(finite, values) if number is not None}
    if any(abs(number) > _SMALLEST for number in known):
        return ""
    why = "every value is 0" if known else "there is no value"
    line = f'<p class="faint">Nothing to show: {why}.</p>'
    return f'<figure class="chart"><figcaption>{text(title)}</figcaption>{line}</figure>'


def draw_figure(title: str, legend: Sequence[tuple[str, str]], description: str, height: float, content: str) -> str:
    """A chart with its heading.

    Args:
        title: Heading, plain text.
        legend: Names, plain text, and SVG images of what they look like.
        description: What those hear who do not see the picture, plain text.
        height: Of the picture, which is :data:`CHART_WIDTH` wide.
        content: SVG elements.
    """
    items = "".join(f"<li>{swatch}{text(name)}</li>" for name, swatch in legend)
    return (
        f'<figure class="chart"><figcaption>{text(title)}</figcaption>'
        + (f'<ul class="legend">{items}</ul>' if items else "")
        + f'<svg viewBox="0 0 {CHART_WIDTH} {height:.0f}" role="img"><title>{text(description)}</title>'
        + f"{content}</svg></figure>"
    )


def draw_lower_side(axis: Axis, across: Callable[[float], float], left: float, bottom: float) -> str:
    """Return the axis line, as many tick labels as there is room for, and the title.

    Args:
        axis: The lower side.
        across: From a value to pixels.
        left: Where the axis begins, pixels.
        bottom: Where it lies, pixels.
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
    # In the middle of the axis; a title wider than that would reach beyond the picture.
    middle = (left + CHART_WIDTH - MARGIN_RIGHT) / 2
    half = min(text_width(axis.title), CHART_WIDTH - 4) / 2
    middle = max(half + 2, min(middle, CHART_WIDTH - 2 - half))
    return "".join(parts) + draw_label(axis.title, middle, bottom + 40, CHART_WIDTH - 4, "middle")
