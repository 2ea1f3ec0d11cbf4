"""The page on a training: loss terms and accuracy over the steps, in one file that any browser shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Point, Series, draw_plot
from yolact_calibration.report.html_page import draw_page, figure, section, text
from yolact_calibration.report.image_pairs import draw_held_back
from yolact_calibration.report.provenance import draw_byline, draw_provenance
from yolact_calibration.training.training_state import Curve
from yolact_plugins.files import counted

__all__ = ["draw_curve"]

_NUM_STRETCHES = 200


def draw_curve(
    curve: Curve,
    title: str,
    held_back: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> str:
    """Return a self-contained HTML page.

    Args:
        curve: Record of the training.
        title: Heading of the page.
        held_back: Images not trained on; see :func:`yolact_calibration.report.image_pairs.draw_held_back`.
        made: Facts about how the page was made; see :mod:`yolact_calibration.report.provenance`.
    """
    document = curve.document(_NUM_STRETCHES)
    steps = document["step"]
    losses = [_series(name, zip(steps, values, strict=True)) for name, values in document["terms"].items()]
    names = list(dict.fromkeys(name for _, values in curve.accuracy for name in values))
    accuracy = [_series(name, ((step, v[name]) for step, v in curve.accuracy if name in v)) for name in names]
    last = steps[-1] if steps else 0
    axis = Axis.covering("training step", [last], from_zero=True, is_count=True)
    charts = [draw_plot("Loss terms", axis, Axis.logarithmic("loss", _heights(losses)), losses)]
    end = ""
    if accuracy:
        best = ", ".join(f"{text(one.name)} {figure(one.points[-1].y, decimals=3)}" for one in accuracy)
        end = f" Accuracy at the end: {best}."
        high = Axis.covering("average precision", [0.0, 1.0])
        charts.append(draw_plot("Accuracy on images not trained on", axis, high, accuracy))
    sections = [
        f"<h1>{text(title)}</h1>{draw_byline(made or {})}",
        f'<p>{counted(last, "step")}.{end}</p><div class="charts">{"".join(charts)}</div>',
        section("Predictions on held-back images", draw_held_back(held_back) if held_back else ""),
        draw_provenance(made or {}),
    ]
    return draw_page(title, "".join(sections))


def _series(name: str, points: Iterable[tuple[float, float]]) -> Series:
    return Series(name, [Point(float(x), float(y)) for x, y in points])


def _heights(series: Sequence[Series]) -> list[float]:
    return [point.y for one in series for point in one.points]
