"""Plots as inline SVG: curves, steps and points over two axes.

Shapes of marks and dashes of lines tell series apart without their colours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

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
from yolact_calibration.report.chart_text import LINE_PX, draw_label, shortened, text_width
from yolact_calibration.report.html_page import figure, finite, plain_text, text

__all__ = ["Limit", "Point", "Series", "draw_plot"]

_HEIGHT, _TOP = 300, 32
_DASHES = ("", "8 3", "2 3", "9 3 2 3", "5 5", "1 4")
_FRONT_DASH = "3 4"
_NUM_SHAPES = 4
_INSET_PX = 8
"""Inset of the lower side's ends, so that no mark covers the numbers of the left side."""
_MAX_NAME_PX = 180
"""Maximum width of a point's name; longer names are shortened."""
_NAMES_DOWN = (-20, 4, -8, -37, 21, -54, 38)
"""Tops of the possible positions of a name, relative to its point, the best first."""
_Box = tuple[float, float, float, float]
"""Bounds of a text: left, top, right, bottom."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a plot.

    Attributes:
        x: Coordinate along the lower side.
        y: Coordinate along the left side.
        low: Lower end of the interval of `y`, or None.
        high: Upper end of the interval of `y`, or None.
        name: Name beside the point.
        is_hollow: Whether the point is shown off the line, as a hollow mark.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""
    is_hollow: bool = False


@dataclasses.dataclass(frozen=True)
class Series:
    """A series of points.

    Attributes:
        name: Name in the legend; a series without a name is not listed.
        points: The points, from left to right.
        style: Line style. ``"line"`` joins the points, but not across an undefined one; ``"steps"`` continues level to
            the next point and marks each; ``"points"`` marks each; ``"front"`` is thin steps without marks.
        shift_px: Offset to the right in pixels, so that intervals of two series do not hide each other.
    """

    name: str
    points: Sequence[Point]
    style: Literal["line", "steps", "points", "front"] = "line"
    shift_px: float = 0.0


@dataclasses.dataclass(frozen=True)
class Limit:
    """A value of the left side that is marked by a line with a name."""

    value: float
    name: str


@dataclasses.dataclass(frozen=True)
class _Field:
    """The rectangle between the axes."""

    x: Axis
    y: Axis
    left: float

    def across(self, value: float) -> float:
        return self.left + _INSET_PX + (CHART_WIDTH - self.left - MARGIN_RIGHT - 2 * _INSET_PX) * self.x.place(value)

    def down(self, value: float) -> float:
        return _HEIGHT - MARGIN_BOTTOM - (_HEIGHT - _TOP - MARGIN_BOTTOM) * self.y.place(value)

    def frame(self) -> list[str]:
        """Return grid, ticks and titles."""
        right = CHART_WIDTH - MARGIN_RIGHT
        parts = [draw_label(self.y.title, 2, 14, CHART_WIDTH - 4)]
        for tick, label in zip(self.y.ticks, self.y.labels(), strict=True):
            y = self.down(tick)
            parts.append(f'<line class="grid" x1="{self.left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{self.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        return [*parts, draw_lower_side(self.x, self.across, self.left, _HEIGHT - MARGIN_BOTTOM)]


def draw_plot(title: str, x: Axis, y: Axis, series: Sequence[Series], limit: Limit | None = None) -> str:
    """Draw curves and points over two axes, as a figure.

    Args:
        title: Heading, plain text.
        x: The lower side.
        y: The left side; its title stands above it.
        series: The series; points with undefined coordinates are left out.
        limit: Horizontal line to draw, or None.

    Returns:
        HTML figure; if there is no point, or all are at zero, it holds a line that says so.
    """
    if nothing := draw_nothing(title, [point.y for one in series for point in one.points]):
        return nothing
    field = _Field(x, y, 10 + max(map(text_width, y.labels())))
    parts = field.frame()
    for index, one in enumerate(series):
        parts += _draw_series(field, one, index)
    taken: list[_Box] = []
    if limit is not None:
        line, name_box = _limit_line(field, limit)
        parts.append(line)
        taken.append(name_box)
    parts += _point_names(field, series, taken)
    named = [(one.name, _swatch(index, one.style)) for index, one in enumerate(series) if one.name]
    content = "".join(parts)
    return draw_figure(title, named, f"{title}: {y.title}, over {x.title}", _HEIGHT, content)


def _limit_line(field: _Field, limit: Limit) -> tuple[str, _Box]:
    """Return the line with its name, and the bounds of the name."""
    y, left, right = field.down(limit.value), field.left + 4, CHART_WIDTH - MARGIN_RIGHT
    # Above the line, unless the title of the left side is there.
    name_y = y - 5 if y > _TOP + LINE_PX else y + LINE_PX
    line = f'<line class="limit" x1="{field.left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    name = draw_label(limit.name, left, name_y, right - left, css_class="limit-name")
    width = text_width(shortened(limit.name, right - left))
    return line + name, (left, name_y - 12, left + width, name_y + 4)


def _draw_series(field: _Field, series: Series, index: int) -> list[str]:
    stretches = _stretches(series)
    points = [point for stretch in stretches for point in stretch]
    parts = []
    for stretch in stretches:
        line = [point for point in stretch if not point.is_hollow]
        if series.style != "points" and line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _line_corners(field, series, line))
            dash = _FRONT_DASH if series.style == "front" else _DASHES[index % len(_DASHES)]
            dashes = f' stroke-dasharray="{dash}"' if dash else ""
            front = " front" if series.style == "front" else ""
            parts.append(f'<polyline class="line{front}"{dashes} points="{path}"/>')
    # A single point is not a visible line.
    alone = [stretch[0] for stretch in stretches[:-1] if len(stretch) == 1]
    marked = {"line": [*alone, *points[-1:]], "front": []}.get(series.style, points)
    parts += [_draw_point(field, series, point, index) for point in marked]
    return [f'<g class="c{index % NUM_COLOURS}">{"".join(parts)}</g>'] if parts else []


def _stretches(series: Series) -> list[list[Point]]:
    """Return the runs of points that are joined; only lines are broken."""
    stretches: list[list[Point]] = [[]]
    for point in series.points:
        if finite(point.x) is not None and finite(point.y) is not None:
            stretches[-1].append(point)
        elif series.style == "line" and stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _line_corners(field: _Field, series: Series, points: Sequence[Point]) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for point in points:
        x, y = field.across(point.x) + series.shift_px, field.down(point.y)
        if corners and series.style != "line":
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    if series.style == "steps":
        # The last step that was kept also holds while others are tried.
        corners.append((max(field.across(point.x) for point in series.points) + series.shift_px, corners[-1][1]))
    return corners


def _draw_point(field: _Field, series: Series, point: Point, index: int) -> str:
    x, y = field.across(point.x) + series.shift_px, field.down(point.y)
    span = ""
    told = figure(point.y)
    if finite(point.low) is not None and finite(point.high) is not None:
        low, high = field.down(point.low or 0.0), field.down(point.high or 0.0)
        span = f'<path class="span" d="M{x:.1f} {low:.1f}V{high:.1f}m-3 0h6M{x - 3:.1f} {low:.1f}h6"/>'
        told += f" ({figure(point.low)} to {figure(point.high)})"
    name = " ".join(part for part in (series.name, point.name) if part)
    note = (
        text(f"{name}: " if name else "") + f"{text(field.y.title)}: {told}; {text(field.x.title)}: {figure(point.x)}"
    )
    return f"<g><title>{note}</title>{span}{_mark(x, y, index, 'hollow' if point.is_hollow else 'mark')}</g>"


def _mark(x: float, y: float, index: int, look: str) -> str:
    shape = index % _NUM_SHAPES
    if shape == 0:
        return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    corners = (
        ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        ((0, -5.5), (5, 4), (-5, 4)),
        ((0, -6), (6, 0), (0, 6), (-6, 0)),
    )[shape - 1]
    path = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)
    return f'<polygon class="{look}" points="{path}"/>'


def _swatch(index: int, style: str) -> str:
    dash = _FRONT_DASH if style == "front" else _DASHES[index % len(_DASHES)]
    line = (
        f'<polyline class="line{" front" if style == "front" else ""}" stroke-dasharray="{dash}" points="0,6 30,6"/>'
        if style != "points"
        else ""
    )
    mark = _mark(15, 6, index, "mark") if style in ("points", "steps") else ""
    return f'<svg class="c{index % NUM_COLOURS}" viewBox="0 0 30 12" aria-hidden="true">{line}{mark}</svg>'


def _point_names(field: _Field, series: Sequence[Series], taken: Sequence[_Box]) -> list[str]:
    """Place names beside their points where they hide nothing; otherwise only the tooltip has the name.

    Args:
        field: The plot.
        series: All series of the plot.
        taken: Bounds of other text.
    """
    named = [(field.across(p.x) + s.shift_px, field.down(p.y), p.name) for s in series for p in s.points if p.name]
    taken = [*taken, *((x - 5, y - 5, x + 5, y + 5) for x, y, _ in named)]
    parts = []
    for x, y, name in named:
        width = text_width(shortened(plain_text(name), _MAX_NAME_PX))
        # Above and beside: intervals are vertical and lines are nearly level.
        places = [(left, y + down) for down in _NAMES_DOWN for left in (x + 7, x - 7 - width, x - width / 2)]
        boxes = [(left, top, left + width, top + 16) for left, top in places]
        box = next((box for box in boxes if _is_free(box, taken, field.left)), None)
        if box is not None:
            taken.append(box)
            parts.append(draw_label(name, box[0], box[1] + 12, _MAX_NAME_PX))
    return parts


def _is_free(box: _Box, taken: Sequence[_Box], first_px: float) -> bool:
    left, top, right, bottom = box
    inside = left >= first_px and right <= CHART_WIDTH and top >= _TOP - 12 and bottom <= _HEIGHT - MARGIN_BOTTOM
    return inside and not any(left < r and right > x and top < b and bottom > y for x, y, r, b in taken)
