"""Accuracy and agreement as text tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from yolact_calibration.evaluation.accuracy import Accuracy
from yolact_calibration.evaluation.agreement import Agreement
from yolact_calibration.evaluation.bootstrap import Interval
from yolact_plugins.files import counted

__all__ = ["accuracy_lines", "agreement_lines", "class_lines"]

Intervals = Mapping[str, Mapping[str, Interval]]
_ROWS = (("box", "bbox"), ("mask", "segm"))
_SIZES = {"AP_small": "small", "AP_medium": "medium", "AP_large": "large"}
_MAX_CLASSES = 20
_MAX_IMAGES = 5


def accuracy_lines(accuracy: Accuracy, intervals: Intervals | None, verbose: bool) -> list[str]:
    """Return the table of ``yolact-eval --annotations``; `verbose` lists every class."""
    figures = {"bbox": accuracy.bbox, **({} if accuracy.has_boxes_only else {"segm": accuracy.segm})}
    lines = _summary(figures, intervals, _SIZES)
    if accuracy.has_boxes_only:
        lines.append("mask  none: the labels have boxes only")
    return [*lines, "", *class_lines(accuracy.by_class, accuracy.num_instances, verbose)]


def agreement_lines(agreement: Agreement, intervals: Intervals | None, verbose: bool) -> list[str]:
    """Return the table of ``yolact-eval --against``; `verbose` lists every class and image."""
    lines = _summary({"bbox": agreement.bbox, "segm": agreement.segm}, intervals, {})
    pairs = (intervals or {}).get("pairs", {})
    total = sum(agreement.num_instances.values())
    lines += [
        "",
        f"found again          {_number(agreement.matched)}{_range(pairs.get('matched'))} of "
        f"{counted(total, 'instance')}",
        f"mask IoU of pairs    {_number(agreement.mask_iou)}{_range(pairs.get('mask_iou'))}, "
        f"5th percentile {_number(agreement.mask_iou_p5)}",
        f"score shift          {_number(agreement.shift, '+.4f')}{_range(pairs.get('shift'), '+.4f')}, absolute "
        f"{_number(agreement.abs_shift, '.4f')}, largest {_number(agreement.max_shift, '.4f')}",
        f"extra instances      {agreement.num_extra}",
        "",
        *class_lines(agreement.by_class, agreement.num_instances, verbose),
    ]
    worst = [image for image in agreement.images if image.loss > 0]
    shown = worst if verbose else worst[:_MAX_IMAGES]
    if shown:
        lines += ["", "images that differ most (mean of 1 - IoU)"]
        lines += [
            f"  {image.loss:.3f}  {image.name}: {image.num_matched} of {image.num_reference} found again, "
            f"{image.num_extra} extra"
            for image in shown
        ]
    return lines


def class_lines(
    by_class: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    num_instances: Mapping[str, int],
    verbose: bool,
) -> list[str]:
    """Return a line for each class with instances, the most frequent ones first; at most 20 unless `verbose`."""
    present = (name for name, count in num_instances.items() if count)
    names = sorted(present, key=lambda name: (-num_instances[name], name))
    shown = names if verbose else names[:_MAX_CLASSES]
    width = max([len("class"), *(len(name) for name in shown)])
    lines = [f"{'class':{width}}  instances  box AP  mask AP  mask AP50"] if shown else []
    for name in shown:
        box, mask = (by_class[kind].get(name, {}) for kind in ("bbox", "segm"))
        lines.append(
            f"{name:{width}}  {num_instances[name]:9d}  {_number(box.get('AP')):>6}  {_number(mask.get('AP')):>7}  "
            f"{_number(mask.get('AP50')):>9}"
        )
    if len(names) > len(shown):
        lines.append(f"... and {len(names) - len(shown)} more classes; -v shows them all")
    return lines


def _summary(
    figures: Mapping[str, Mapping[str, float | None]], intervals: Intervals | None, more: Mapping[str, str]
) -> list[str]:
    columns = {"AP50": "AP50", "AP75": "AP75", **more}
    titles = ["AP".rjust(6), *(["95 % interval".center(16)] if intervals else [])]
    lines = [" " * 6 + "  ".join([*titles, *(title.rjust(6) for title in columns.values())])]
    for title, kind in _ROWS:
        if kind not in figures:
            continue
        cells = [_number(figures[kind]["AP"]).rjust(6)]
        if intervals:
            cells.append(_range(intervals[kind]["AP"]).strip(" ()").center(16))
        cells += [_number(figures[kind][name]).rjust(6) for name in columns]
        lines.append(f"{title:6}" + "  ".join(cells))
    return lines


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _range(interval: Interval | None, form: str = ".3f") -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f" ({interval.low:{form}} to {interval.high:{form}})"
