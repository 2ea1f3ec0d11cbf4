"""The picture of a training: loss terms and accuracy over the steps, in one file that any browser shows."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from yolact_calibration.training_state import Curve

__all__ = ["draw_curve"]

_WIDTH, _HEIGHT = 860, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 16, 40
# Distinguishable with colour-blind eyes too (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }
svg { width: 100%; height: auto; } text { fill: currentColor; font-size: 12px; }
.grid { stroke: currentColor; stroke-opacity: .18; } .line { fill: none; stroke-width: 2; }
"""
_Points = Sequence[tuple[float, float]]
_Series = dict[str, list[tuple[float, float]]]


def draw_curve(curve: Curve, title: str) -> str:
    """A self-contained HTML page.

    Args:
        curve: What happened.
        title: Heading of the page.
    """
    document = curve.document(200)
    steps = document["step"]
    losses: _Series = {name: list(zip(steps, values, strict=True)) for name, values in document["terms"].items()}
    names = list(dict.fromkeys(name for _, values in curve.accuracy for name in values))
    accuracy: _Series = {
        name: [(float(step), values[name]) for step, values in curve.accuracy if name in values] for name in names
    }
    last = steps[-1] if steps else 0
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{last} steps.</p>", "<h2>Loss terms</h2>"]
    parts.append(_plot(losses, last, _ceiling(losses), logarithmic=True))
    if accuracy:
        best = ", ".join(f"{html.escape(name)} {points[-1][1]:.3f}" for name, points in accuracy.items())
        parts += [f"<h2>Accuracy on images not trained on</h2><p>At the end: {best}.</p>"]
        parts.append(_plot(accuracy, last, 1.0, logarithmic=False))
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _ceiling(series: _Series) -> float:
    return max((value for points in series.values() for _, value in points), default=1.0) or 1.0


def _plot(series: _Series, last: float, top: float, *, logarithmic: bool) -> str:
    lowest = min((v for points in series.values() for _, v in points if v > 0), default=top / 10)
    floor = 10 ** math.floor(math.log10(lowest)) if logarithmic else 0.0
    ceiling = 10 ** math.ceil(math.log10(top)) if logarithmic else top
    if logarithmic and ceiling <= floor:
        ceiling = floor * 10

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / max(last, 1)

    def y(value: float) -> float:
        decades = math.log10(ceiling / floor) if logarithmic else 1.0
        share = math.log10(max(value, floor) / floor) / decades if logarithmic else value / ceiling
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    marks = (
        [floor * 10**i for i in range(round(math.log10(ceiling / floor)) + 1)]
        if logarithmic
        else [ceiling * i / 5 for i in range(6)]
    )
    parts = [_grid_line(y(mark), f"{mark:g}") for mark in marks]
    parts += [
        f'<text x="{x(last * i / 4):.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{last * i / 4:.0f}</text>'
        for i in range(5)
    ]
    for index, (name, points) in enumerate(series.items()):
        parts.append(_line(name, [(x(step), y(value)) for step, value in points], index))
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _grid_line(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _line(name: str, points: _Points, index: int) -> str:
    colour = _COLOURS[index % len(_COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    legend_y = _TOP + 14 + 20 * index
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points[-1:])
    return (
        f'<polyline class="line" stroke="{colour}" points="{path}"/>{dots}'
        f'<rect x="{_WIDTH - _RIGHT + 16}" y="{legend_y - 9}" width="14" height="4" fill="{colour}"/>'
        f'<text x="{_WIDTH - _RIGHT + 36}" y="{legend_y - 3}">{html.escape(name)}</text>'
    )
