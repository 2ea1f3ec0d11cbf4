"""What all charts share: their size and style, axes with round numbers, and the figure with its heading and legend.

A chart is as wide as a phone shows with readable letters; a page sets two beside each other where there is room.
Colours come from :mod:`yolact_calibration.report.html_page`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from yolact_calibration.report.html_page import MINUS, figure, finite, text

__all__ = [
    "CHART_STYLE",
    "CHART_WIDTH",
    "LINE_PX",
    "MARGIN_BOTTOM",
    "MARGIN_RIGHT",
    "NUM_COLOURS",
    "Axis",
    "draw_figure",
    "draw_lower_side",
    "draw_nothing",
    "text_width",
]

CHART_WIDTH = 480
MARGIN_RIGHT, MARGIN_BOTTOM = 18, 46
_TEXT_PX, LINE_PX = 14, 15
"""Height of the charts' text, and of a line of it."""
# Widths of letters, for the height of the text, in DejaVu Sans, the widest font that system-ui is anywhere.
_LETTER_WIDTHS = {" !'(),-./:;IJ[\\]`fijlrt|": 0.42, '"*?FLPTY_aceksoxyzv': 0.62, "#$%&+<=>@MWmw^~DGHNOQUC": 1.0}
_WIDTH = {letter: width for letters, width in _LETTER_WIDTHS.items() for letter in letters}
_OTHER_WIDTH = 0.7
NUM_COLOURS = 6
CHART_STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: .5rem 1.5rem;
  align-items: end; }
.chart { margin: .6rem 0; max-width: 580px; } .chart figcaption { font-weight: 600; font-size: .95rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 14px; paint-order: stroke;
  stroke: var(--page); stroke-width: 3px; }
.axis { stroke: var(--faint); } .grid { stroke: var(--rule); } .limit { stroke: var(--bad); stroke-dasharray: 6 4;
  stroke-width: 1.5; }
svg .limit-name { fill: var(--bad); }
.line { fill: none; stroke: var(--c); stroke-width: 2; } svg .front { stroke: var(--faint); stroke-width: 1.2; }
.mark { fill: var(--c); stroke: var(--page); } .hollow { fill: var(--page); stroke: var(--c); stroke-width: 1.6; }
.span { stroke: var(--c); stroke-width: 1.5; stroke-opacity: .6; fill: none; } .bar { fill: var(--c); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1rem; margin: .2rem 0; padding: 0; font-size: .85rem;
  min-height: 1.5em; } .legend svg { display: inline-block; width: 30px; height: 12px; margin-right: .35rem; }
.c0 { --c: var(--s0); } .c1 { --c: var(--s1); } .c2 { --c: var(--s2); }
.c3 { --c: var(--s3); } .c4 { --c: var(--s4); } .c5 { --c: var(--s5); }
.histogram { width: 160px; } .histogram .bar { fill: var(--s0); } .cut { fill: var(--s1); fill-opacity: .18; }
.clip { stroke: var(--s1); stroke-width: 1.5; }
@media print { * { print-color-adjust: exact; }
  .charts { grid-template-columns: 1fr 1fr; } }
"""
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


def text_width(plain: str, height_px: float = _TEXT_PX) -> float:
    """Room that a text takes, pixels, on the safe side: no font that a browser is likely to have is wider.

    Args:
        plain: One line.
        height_px: Size of the font; that of the charts unless it is given.
    """
    return height_px * sum(_WIDTH.get(letter, _OTHER_WIDTH if letter.isascii() else 1.0) for letter in plain)


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
    """The axis line, as many tick labels as there is room for, and the title."""
    labels = axis.labels()
    room = (CHART_WIDTH - left - MARGIN_RIGHT) / max(1, len(labels) - 1)
    stride = max(1, math.ceil((max(map(text_width, labels)) + 8) / room))
    ticks = list(zip(axis.ticks, labels, strict=True))[::stride]
    parts = [
        f'<line class="axis" x1="{left:.1f}" x2="{CHART_WIDTH - MARGIN_RIGHT}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>'
    ]
    for tick, label in ticks:
        x = across(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 4:.1f}"/>')
        # The last label would be cut off where it is long.
        x = min(x, CHART_WIDTH - 2 - text_width(label) / 2)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{label}</text>')
    middle = (left + CHART_WIDTH - MARGIN_RIGHT) / 2
    title = f'<text x="{middle:.1f}" y="{bottom + 38:.1f}" text-anchor="middle">{text(axis.title)}</text>'
    return "".join(parts) + title
