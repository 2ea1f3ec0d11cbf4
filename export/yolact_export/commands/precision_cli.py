"""The precision options of ``yolact-export``: float16 and INT8 networks, and the guard that judges them."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.options import file_rules
from yolact_export.commands.jobs import wants_precision
from yolact_export.errors import UsageError
from yolact_plugins.files import real_path, write_atomically
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.option_numbers import MAX_COUNT, MAX_THREADS, check_most, shown_number
from yolact_runtime.terminal import Terminal

if TYPE_CHECKING:
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.quantisation.calibration_images import CalibrationImages
    from yolact_export.pipeline import AddNetworks
    from yolact_export.precision.guard_images import GuardImages
    from yolact_export.precision.precision import PrecisionRequest, PrecisionResult
    from yolact_runtime.model.manifest import Manifest

__all__ = [
    "check_precision_options",
    "guard_status",
    "network_adder",
    "precision_request",
    "say_precisions",
]

_GUARD_FAILED = 3

# Of the images without labels, this part judges and is not calibrated on.
_HELD_BACK = 0.25
_ALL_POINTS = 100
_LEAST_HELD_BACK, _MOST_HELD_BACK = 8, 64
_LEAST_TO_SPLIT = 16


def check_precision_options(options: argparse.Namespace) -> None:
    """Refuse what makes no sense before anything heavy is imported.

    Raises:
        UsageError: An option is missing, out of range, or contradicts another.
    """
    if options.annotations is not None and options.images is None:
        raise UsageError("--annotations needs --images: the folder of the images that the labels name")
    _require_between(options, "threads", 1, MAX_THREADS)
    check_bit_depth(options.bit_depth, "--bit-depth")
    if not wants_precision(options):
        return
    if not options.calib:
        raise UsageError(
            "--int8 and --fp16 need --calib: a folder of images as the camera sees them, without labels. Ranges from "
            "other data would be wrong in silence"
        )
    if options.max_drop is not None:
        if options.no_guard:
            raise UsageError("--max-drop and --no-guard contradict each other; leave one out")
        if not 0 <= options.max_drop <= _ALL_POINTS:
            raise UsageError(
                f"--max-drop is a number of points, 0 to {_ALL_POINTS}, such as 0.5; found {options.max_drop}"
            )
    _require_between(options, "guard_images", 1, MAX_COUNT)
    _require_between(options, "sensitivity_images", 0, MAX_COUNT)


def _require_between(options: argparse.Namespace, name: str, least: int, most: int) -> None:
    value = getattr(options, name)
    if value is not None and value < least:
        raise UsageError(f"{_option(name)} must be {least} or more, found {shown_number(value)}")
    check_most(_option(name), value, most)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def precision_request(
    options: argparse.Namespace, terminal: Terminal, usual_bit_depth: int | None = None
) -> PrecisionRequest:
    """What to add to the bundle, with its images found and looked at; `usual_bit_depth` is what the bundle states.

    Raises:
        DatasetError: The images do not serve.
    """
    from yolact_calibration.quantisation.calibration_images import find_calibration_images
    from yolact_calibration.quantisation.qdq_placement import Dialect
    from yolact_calibration.quantisation.ranges import RangeMethod
    from yolact_export.precision.precision import PrecisionRequest

    images = find_calibration_images(options.calib, bit_depth=options.bit_depth, usual_bit_depth=usual_bit_depth)
    calibration, guard = _guard(options, images, terminal)
    dialects = {
        "cpu": (Dialect.CPU,),
        "tensorrt": (Dialect.TENSORRT,),
        "rtx": (Dialect.TENSORRT,),
        "auto": (Dialect.CPU, Dialect.TENSORRT),
    }[options.target]
    return PrecisionRequest(
        float16=options.fp16,
        dialects=dialects if options.int8 else (),
        calibration=calibration,
        guard=guard,
        method=RangeMethod(options.calibration_method or "mse"),
        max_drop=math.inf if options.no_guard else options.max_drop,
        everything=options.int8_all,
        num_sensitivity=16 if options.sensitivity_images is None else options.sensitivity_images,
        num_threads=options.threads or 0,
        cache=options.calibration_cache,
        half_io=options.io_dtype != "float32",
    )


def _guard(
    options: argparse.Namespace, images: CalibrationImages, terminal: Terminal
) -> tuple[CalibrationImages, GuardImages]:
    """Images to calibrate on, and images to judge by."""
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.labels.coco import CocoAnnotations
    from yolact_export.precision.guard_images import GuardImages

    if options.annotations is not None:
        data = AnnotatedImages.open(
            CocoAnnotations.from_file(options.annotations), options.images, file_rules(options), images.reader
        )
        if data.annotations.has_boxes_only:
            raise DatasetError(
                f"{options.annotations}: the labels have boxes only, so that a loss of masks could not be seen; give "
                f"labels with outlines, or leave --annotations out: the networks are then judged by agreement"
            )
        data.warn_of_doubts(terminal)
        _warn_of_overlap(images, data, terminal)
        if options.guard_images is not None:
            data = dataclasses.replace(data, annotations=data.annotations.first(options.guard_images))
        data.check(terminal)
        return images, GuardImages.labelled(data, None)
    most = options.guard_images or _MOST_HELD_BACK
    if len(images) < _LEAST_TO_SPLIT:
        terminal.warn(
            f"{len(images)} images are too few to hold some back: the networks are judged by the images that they were "
            f"calibrated on, which flatters them. {_LEAST_TO_SPLIT} or more are split"
        )
        _, held = images.hold_back(min(most, len(images)))
        return images, GuardImages(held, f"agreement on {len(held)} of the same images")
    count = min(most, max(_LEAST_HELD_BACK, round(len(images) * _HELD_BACK)))
    calibration, held = images.hold_back(count)
    return calibration, GuardImages(held, f"agreement on {len(held)} images that are held back")


def _warn_of_overlap(images: CalibrationImages, data: AnnotatedImages, terminal: Terminal) -> None:
    calibrated = {real_path(image.path) for image in images.images}
    count = sum(real_path(data.path(image)) in calibrated for image in data.annotations.images)
    if count:
        terminal.warn(
            f"{count} of the {len(data.annotations)} labelled images are among those of --calib: the networks are "
            f"judged by images that they were calibrated on, which flatters them. Give --calib others"
        )


def network_adder(
    options: argparse.Namespace,
    terminal: Terminal,
    earlier_rows: Callable[[PrecisionResult], Sequence[Mapping[str, Any]]] = lambda _: (),
    usual_bit_depth: int | None = None,
) -> AddNetworks:
    """What is called when the float32 network stands, of an export or of an existing bundle.

    Args:
        options: Of the command line.
        terminal: For progress and talk.
        earlier_rows: Given the new networks, the rows of an earlier report on networks that stay beside them.
        usual_bit_depth: What an existing bundle states for the images.

    Raises:
        DatasetError: The images do not serve.
    """
    request = precision_request(options, terminal, usual_bit_depth)

    def add(folder: Path, manifest: Manifest) -> tuple[PrecisionResult, dict[str, Any]]:
        from yolact_calibration.report.precision_report import draw_precision_report
        from yolact_calibration.report.provenance import provenance
        from yolact_export.bundle_writer import REPORT_PAGE_NAME
        from yolact_export.precision.document import measure_latencies, precision_document
        from yolact_export.precision.precision import add_precisions

        result = add_precisions(folder, manifest, request, terminal)
        latency_ms = measure_latencies(result, manifest, request.num_threads)
        document = precision_document(result, request, manifest, latency_ms)
        document["made"] = provenance(options.command_line, _page_files(manifest))
        if earlier := list(earlier_rows(result)):
            document["earlier"] = earlier
        write_atomically(folder / REPORT_PAGE_NAME, draw_precision_report(document).encode())
        # The pictures are in the page; as JSON they would only be in the way.
        without = [
            {key: value for key, value in row.items() if key not in {"reference", "candidate"}}
            for row in document["worst_images"]
        ]
        return result, {**document, "worst_images": without}

    return add


def _page_files(manifest: Manifest) -> list[dict[str, str]]:
    """What the page names: the checkpoint that all networks come from, or the model where no checkpoint is known."""
    found = manifest.provenance
    name, digest = found.get("checkpoint", manifest.name), found.get("checkpoint_sha256", "")
    return [{"role": "Checkpoint" if "checkpoint" in found else "Model", "name": name, "sha256": digest}]


def say_precisions(report: Mapping[str, Any], bundle: Path, terminal: Terminal) -> None:
    """The comparison, what stayed in float and why, and the verdict."""
    from yolact_export.precision.document import float32_lines, output_lines, table_lines

    terminal.heading("precisions")
    for line in table_lines(report):
        terminal.say(f"  {line}")
    for entry in report.get("kept_float", ()):
        count = entry["convolutions"]
        terminal.say(f"  in float: {entry['group']} ({count} convolution{'s' * (count != 1)}): {entry['why']}")
    for line in (*float32_lines(report), *output_lines(report)):
        terminal.say(f"  {line}")
    terminal.say(f"  report: {bundle / 'report.html'}")
    terminal.heading(str(report["verdict"]))


def guard_status(result: PrecisionResult | None, terminal: Terminal) -> int:
    """Exit status: 3 when a network lost too much, with what to do about it."""
    if result is None or result.passed:
        return 0
    for variant in result.variants:
        if variant.passed:
            continue
        overflow = "" if variant.overflow is None else f" It overflows: {variant.overflow}."
        if not variant.is_sound:
            terminal.error(
                f"{variant.precision} gives outputs that are not finite: kept as {variant.path.name}.{overflow} Images "
                f"with such values in --calib keep these layers in float32"
            )
        else:
            lost = f"{variant.judgement.worst:.2f} points ({result.measure})"
            terminal.error(
                f"{variant.precision} loses {lost}, {result.max_drop:g} are allowed: kept as {variant.path.name}."
                f"{overflow} More or better images for --calib may help; --max-drop P allows more, and report.html "
                f"shows where it hurts"
            )
    return _GUARD_FAILED
