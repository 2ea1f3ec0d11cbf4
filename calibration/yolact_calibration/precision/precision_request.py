"""The images of a request for other precisions: found, checked, and divided into those that calibrate and judge."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.options import Labels
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.precision.network_maker import PrecisionRequest
from yolact_calibration.precision.options import PrecisionOptions
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_plugins.files import real_path
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["ImageSource", "precision_request"]

# Share of images without labels that judges, and is not calibrated on.
_HELD_BACK = 0.25
_LEAST_HELD_BACK, _MOST_HELD_BACK = 8, 64
_LEAST_TO_SPLIT = 16
_DIALECTS = {
    "cpu": (Dialect.CPU,),
    "tensorrt": (Dialect.TENSORRT,),
    "rtx": (Dialect.TENSORRT,),
    "auto": (Dialect.CPU, Dialect.TENSORRT),
}


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images for calibration and judgement.

    Attributes:
        words: Folders, globs and files of unlabelled images.
        labels: Labelled images to judge by; None judges by agreement with the float32 network.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what the images state.
        usual_bit_depth: The same, for images that state nothing.
        num_threads: CPU threads; 0 takes all.
    """

    words: tuple[str, ...]
    labels: Labels | None = None
    bit_depth: int | None = None
    usual_bit_depth: int | None = None
    num_threads: int = 0


def precision_request(options: PrecisionOptions, source: ImageSource, reporter: Reporter = SILENT) -> PrecisionRequest:
    """Find and check the images, and return the request for a :class:`NetworkMaker`.

    Args:
        options: The networks.
        source: The images.
        reporter: Receives warnings and progress.

    Raises:
        DatasetError: The images or the labels cannot be used.
    """
    images = find_calibration_images(source.words, bit_depth=source.bit_depth, usual_bit_depth=source.usual_bit_depth)
    if source.labels is None:
        calibration, guard = _split(images, options.num_guard_images, reporter)
    else:
        calibration, guard = images, _labelled(source.labels, images, options.num_guard_images, reporter)
    return PrecisionRequest(
        float16=options.float16,
        dialects=_DIALECTS[options.target] if options.int8 else (),
        calibration=calibration,
        guard=guard,
        method=RangeMethod(options.method),
        max_drop=options.max_drop,
        everything=options.everything,
        num_sensitivity=options.num_sensitivity,
        num_threads=source.num_threads,
        cache=None if options.cache is None else Path(options.cache),
        half_io=options.half_io,
    )


def _labelled(labels: Labels, images: CalibrationImages, limit: int | None, reporter: Reporter) -> GuardImages:
    annotations = CocoAnnotations.from_file(Path(labels.annotations))
    data = AnnotatedImages.open(annotations, Path(labels.images), labels.rules, images.reader)
    if data.annotations.has_boxes_only:
        raise DatasetError(
            f"{labels.annotations}: the labels have boxes only, so that a loss of masks could not be seen; give "
            f"labels with outlines, or none: the networks are then judged by agreement"
        )
    data.warn_of_doubts(reporter)
    _warn_of_overlap(images, data, reporter)
    if limit is not None:
        data = dataclasses.replace(data, annotations=data.annotations.first(limit))
    data.check(reporter)
    return GuardImages.labelled(data, None)


def _split(images: CalibrationImages, limit: int | None, reporter: Reporter) -> tuple[CalibrationImages, GuardImages]:
    """Return images to calibrate on and images to judge by, where none has labels."""
    most = limit or _MOST_HELD_BACK
    if len(images) < _LEAST_TO_SPLIT:
        reporter.warn(
            f"{len(images)} images are too few to hold some back: the networks are judged by the images that they were "
            f"calibrated on, which flatters them. {_LEAST_TO_SPLIT} or more are split"
        )
        _, held = images.hold_back(min(most, len(images)))
        return images, GuardImages(held, f"agreement on {len(held)} of the same images")
    count = min(most, max(_LEAST_HELD_BACK, round(len(images) * _HELD_BACK)))
    calibration, held = images.hold_back(count)
    return calibration, GuardImages(held, f"agreement on {len(held)} images that are held back")


def _warn_of_overlap(images: CalibrationImages, data: AnnotatedImages, reporter: Reporter) -> None:
    calibrated = {real_path(image.path) for image in images.images}
    count = sum(real_path(data.path(image)) in calibrated for image in data.annotations.images)
    if count:
        reporter.warn(
            f"{count} of the {len(data.annotations)} labelled images are among those of the calibration: the networks "
            f"are judged by images that they were calibrated on, which flatters them. Calibrate with others"
        )
