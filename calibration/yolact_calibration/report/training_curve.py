"""The picture of a training: loss terms and accuracy over the steps, in one file that any browser shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yolact_calibration.report.chart_frame import CHART_STYLE, Axis
from yolact_calibration.report.charts import Point, Series, draw_plot
from yolact_calibration.report.html_page import draw_page, figure, made_with, text
from yolact_calibration.report.precision_evidence import SHEET_STYLE, draw_images
from yolact_calibration.training.training_state import Curve
from yolact_plugins.files import counted

__all__ = ["draw_curve"]

_NUM_STRETCHES = 200


def draw_curve(
    curve: Curve,
    title: str,
    pictures: Sequence[Mapping[str, Any]] = (),
    versions: Mapping[str, str] | None = None,
    made: Mapping[str, str] | None = None,
) -> str:
    """A self-contained HTML page.

    Args:
        curve: What happened.
        title: Heading of the page.
        pictures: Images not trained on: labels beside what is found; see
            :func:`yolact_calibration.report.precision_evidence.draw_images`.
        versions: Program -> version, for the foot of the page.
        made: The rest of the foot; see :func:`~yolact_calibration.report.html_page.made_with`.
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
    body = f'<h1>{text(title)}</h1><p>{counted(last, "step")}.{end}</p><div class="charts">{"".join(charts)}</div>'
    if pictures:
        body += f'<h2 id="pictures">Images not trained on</h2>{draw_images(pictures)}'
    body += made_with(versions or {}, made or {})
    return draw_page(title, body, CHART_STYLE + SHEET_STYLE)


def _series(name: str, points: Iterable[tuple[float, float]]) -> Series:
    return Series(name, [Point(float(x), float(y)) for x, y in points])


def _heights(series: Sequence[Series]) -> list[float]:
    return [point.y for one in series for point in one.points]
