"""Accuracy of an exported model: average precision against labels, or agreement with a reference model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_benchmarks.facade.input_checks import as_words, check_image_folder, check_precisions
from yolact_calibration.errors import DatasetError, UsageError
from yolact_calibration.evaluation.bootstrap import MAX_RESAMPLES
from yolact_calibration.labels.options import FileRules
from yolact_plugins.files import counted
from yolact_runtime.commands.signature_options import (
    require_consistent_trust,
    signature_document,
    signature_words,
)
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.errors import BackendError, FrameError
from yolact_runtime.media.image_reader import ImageReader, reader_for_model
from yolact_runtime.option_numbers import (
    MAX_COUNT,
    MAX_SEED,
    MAX_THREADS,
    check_most,
    keep_between,
    keep_numbers,
    shown_number,
)
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from yolact_calibration.evaluation.accuracy import Accuracy
    from yolact_calibration.evaluation.agreement import Agreement
    from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval
    from yolact_runtime.masks.instances import Instances
    from yolact_runtime.segmenter import Segmenter

__all__ = ["Evaluation", "EvaluationOptions", "evaluate"]

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation.

    Attributes:
        limit: Number of images, the first by id or by name; None takes all.
        min_confidence: Confidence above which a detection of the reference model counts as true; None is 0.3. With
            labels every detection counts, and None is the only value.
        num_resamples: Resamples of the images that the confidence intervals are computed from; 0 computes none.
        seed: Random seed of the resamples.
        num_threads: CPU threads; 0 leaves the number to the backend.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what the images or the model state.
        rules: Treatment of annotated images that are missing or outside of their folder.
        verify_keys: Public keys, one of which must have signed every bundle that is opened; empty takes those that the
            environment names.
        trust_engine: If True, the model is an engine without its bundle, which the caller trusts.

    Raises:
        UsageError: A field is out of its range, or not a number; the message names it.
    """

    limit: int | None = None
    min_confidence: float | None = None
    num_resamples: int = 1000
    seed: int = 0
    num_threads: int = 0
    bit_depth: int | None = None
    rules: FileRules = field(default_factory=FileRules)
    verify_keys: tuple[Path, ...] = ()
    trust_engine: bool = False

    def __post_init__(self) -> None:
        keep_numbers(self, ("limit", "num_resamples", "seed", "bit_depth"), ("min_confidence",))
        keep_between(self, {"num_threads": (0, MAX_THREADS)})
        for name, least, most in (("limit", 1, MAX_COUNT), ("num_resamples", 0, MAX_RESAMPLES), ("seed", 0, MAX_SEED)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be {least} or more, found {shown_number(value)}")
            check_most(name, value, most)
        if self.min_confidence is not None and not 0 <= self.min_confidence < 1:
            raise UsageError(f"min_confidence must be 0 or more and below 1, found {self.min_confidence:g}")
        check_bit_depth(self.bit_depth)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        figures: The measured accuracy, or agreement with the reference model.
        intervals: Kind of figure to name to 95 % interval, from resampled images; None if none were asked for.
        seconds: Duration of the evaluation.
    """

    figures: Accuracy | Agreement
    intervals: Mapping[str, Mapping[str, Interval]] | None
    seconds: float
    _facts: Mapping[str, Any] = field(repr=False)

    @property
    def box_ap(self) -> float | None:
        """Average precision of boxes, 0 to 1; None without any instance."""
        return self.figures.bbox["AP"]

    @property
    def mask_ap(self) -> float | None:
        """Average precision of masks, 0 to 1; None without any instance, or if the labels have boxes only."""
        return None if getattr(self.figures, "has_boxes_only", False) else self.figures.segm["AP"]

    def document(self) -> dict[str, Any]:
        """Return the JSON object that ``yolact-eval --json`` writes."""
        return {**self.figures.document(), **self._facts, "seconds": round(self.seconds, 2)}


def evaluate(
    model: Path | str,
    images: Sequence[Path | str] | Path | str,
    *,
    annotations: Path | str | None = None,
    against: Path | str | None = None,
    backend: str = "auto",
    precision: str | None = None,
    options: EvaluationOptions | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Measure the accuracy of a model against labels, or its agreement with a reference model.

    Args:
        model: Folder of a bundle, or one of its ``.onnx`` or ``.plan`` files.
        images: Folder of the annotated images; with `against` one or several folders, image files and globs.
        annotations: File of labels in COCO's format.
        against: The reference model, whose detections count as true. Of a bundle, its float32 network.
        backend: Name of a backend, or ``"auto"``.
        precision: Network of a bundle, such as ``"fp32"``; None takes the one that the backend runs best.
        options: Further settings.
        reporter: Receives warnings and progress.

    Returns:
        The figures, and intervals from resampled images.

    Raises:
        UsageError: Neither or both of `annotations` and `against` are given, or an option contradicts them.
        DatasetError: Labels or images cannot be used, or the two models have different classes.
        MediaError: An image cannot be read; no figure is computed from the others.
        BackendError: The model does not run here.
        BundleError: A model does not exist or is damaged.
        SignatureError: A model is not signed by one of the keys.
        MissingDependencyError: The evaluator or OpenCV is not installed.

    Examples:
        >>> result = evaluate("mine.bundle", "val/", annotations="val.json")  # doctest: +SKIP
        >>> result.mask_ap  # doctest: +SKIP
        0.412
    """
    from yolact_calibration.evaluation.coco_evaluator import require_evaluator

    options = options or EvaluationOptions()
    words = as_words(images)
    run = _Run(Path(model), None if against is None else Path(against), words, backend, precision, options, reporter)
    run.check(annotations is not None)
    require_evaluator()
    started = time.monotonic()
    figures, intervals, facts = (
        run.measure_agreement() if annotations is None else run.measure_accuracy(Path(annotations))
    )
    return Evaluation(figures, intervals, time.monotonic() - started, facts)


_Intervals = Mapping[str, Mapping[str, "Interval"]] | None


@dataclass(frozen=True)
class _Run:
    model: Path
    against: Path | None
    words: tuple[str, ...]
    backend: str
    precision: str | None
    options: EvaluationOptions
    reporter: Reporter

    def check(self, has_labels: bool) -> None:
        """Refuse contradictory options before anything heavy is imported or opened."""
        options = self.options
        if has_labels == (self.against is not None):
            raise UsageError("give either annotations, to measure accuracy, or against, a model to compare with")
        if options.min_confidence is not None and has_labels:
            raise UsageError("min_confidence has no effect on annotations: with labels, every detection counts")
        if self.against is not None and (options.rules.skip_missing or options.rules.allow_outside):
            raise UsageError("skip_missing and allow_outside have no effect without annotations")
        require_consistent_trust(self.model, options.verify_keys, options.trust_engine)
        check_precisions(self.model, [self.precision] if self.precision else [])

    def measure_accuracy(self, labels: Path) -> tuple[Accuracy, _Intervals, dict[str, Any]]:
        from yolact_calibration.data.annotated_images import AnnotatedImages
        from yolact_calibration.evaluation.accuracy import AccuracyMeter
        from yolact_calibration.evaluation.bootstrap import bootstrap_precision
        from yolact_calibration.evaluation.coco_evaluator import KINDS
        from yolact_calibration.labels.coco import CocoAnnotations

        options, reporter = self.options, self.reporter
        check_image_folder(self.words)
        annotations = CocoAnnotations.from_file(labels)
        if options.limit is not None:
            annotations = annotations.first(options.limit)
        with self._open(self.model, self.precision) as segmenter:
            reader = reader_for_model(options.bit_depth, segmenter.manifest, reporter.warn)
            data = AnnotatedImages.open(annotations, Path(self.words[0]), options.rules, reader)
            annotations = data.annotations
            meter = AccuracyMeter(annotations, segmenter.class_names)
            for finding in (*meter.findings, *data.findings):
                reporter.warn(finding)
            data.check(reporter)
            for image in reporter.progress(annotations.images, "images", len(annotations)):
                path = data.path(image)
                meter.add(image.image_id, _segment(segmenter, path, reader.read(path)))
            model = self._describe(self.model, segmenter)
        accuracy, settings = meter.measure(), self._resampling()
        kinds = [kind for kind in KINDS if kind == "bbox" or not accuracy.has_boxes_only]
        intervals = {k: bootstrap_precision(accuracy.matches(k), settings) for k in kinds} if settings else None
        facts = {
            "model": model,
            "annotations": {"file": str(labels), "sha256": annotations.sha256},
            "findings": [*accuracy.findings, *data.findings],
        }
        return accuracy, intervals, facts | _interval_document(intervals, settings)

    def measure_agreement(self) -> tuple[Agreement, _Intervals, dict[str, Any]]:
        from yolact_calibration.evaluation.agreement import AgreementMeter

        assert self.against is not None
        options, reporter = self.options, self.reporter
        paths = self._find_images()
        with ExitStack() as stack:
            candidate = stack.enter_context(self._open(self.model, self.precision))
            # The float network of a bundle: INT8 is compared with its source, and not with itself.
            precision = "fp32" if self.against.is_dir() else None
            reference = stack.enter_context(self._open(self.against, precision))
            self._require_same_classes(candidate.class_names, reference.class_names)
            least = 0.3 if options.min_confidence is None else options.min_confidence
            meter = AgreementMeter(reference.class_names, least)
            reader = self._reader_for_both(candidate, reference)
            for path in reporter.progress(paths, "images", len(paths)):
                frame = reader.read(path)
                meter.add(str(path), _segment(reference, path, frame), _segment(candidate, path, frame))
            facts: dict[str, Any] = {
                "model": self._describe(self.model, candidate),
                "reference": self._describe(self.against, reference),
            }
        agreement, settings = meter.measure(), self._resampling()
        if not agreement.num_instances:
            reporter.warn(
                f"the reference finds nothing with a confidence above {agreement.min_confidence} in these images, so "
                f"agreement is undefined: give other images, or a lower confidence threshold"
            )
        intervals = agreement.intervals(settings) if settings else None
        return agreement, intervals, facts | _interval_document(intervals, settings)

    def _resampling(self) -> BootstrapSettings | None:
        from yolact_calibration.evaluation.bootstrap import BootstrapSettings

        if self.options.num_resamples == 0:
            return None
        return BootstrapSettings(num_resamples=self.options.num_resamples, seed=self.options.seed)

    def _open(self, path: Path, precision: str | None) -> Segmenter:
        from yolact_runtime.backends.onnxruntime import float16_note
        from yolact_runtime.segmenter import Segmenter, SegmenterOptions

        # No second threshold, as in the published evaluation: AP counts the low scores too.
        settings = SegmenterOptions(min_confidence=0.0, num_threads=self.options.num_threads)
        trusted, keys = self._is_trusted(path), self.options.verify_keys or None
        segmenter = Segmenter.open(path, self.backend, settings, precision, verify_key=keys, trust_engine=trusted)
        manifest, signature = segmenter.manifest, signature_document(path, segmenter, trusted)
        self.reporter.say(
            f"{path}: {manifest.name} ({manifest.precision}) on {segmenter.backend_name}{signature_words(signature)}"
        )
        if note := float16_note(segmenter.backend_name, manifest.precision):
            self.reporter.warn(note)
        return segmenter

    def _is_trusted(self, path: Path) -> bool:
        """Return whether an engine is trusted: the model may be, and never the one that it is compared with."""
        return bool(self.options.trust_engine and path == self.model)

    def _reader_for_both(self, candidate: Segmenter, reference: Segmenter) -> ImageReader:
        depths = {segmenter.manifest.input.bit_depth for segmenter in (candidate, reference)} - {None}
        if len(depths) > 1 and self.options.bit_depth is None:
            raise UsageError(
                f"{self.model} and {self.against} were calibrated with images of different bit depths, "
                f"{' and '.join(map(str, sorted(filter(None, depths))))}: set bit_depth to that of these images"
            )
        stated = candidate if candidate.manifest.input.bit_depth is not None else reference
        return reader_for_model(self.options.bit_depth, stated.manifest, self.reporter.warn)

    def _describe(self, path: Path, segmenter: Segmenter) -> dict[str, str]:
        from yolact_runtime.backends.onnxruntime import float16_note

        note = float16_note(segmenter.backend_name, segmenter.manifest.precision)
        return {
            "file": str(path),
            "name": segmenter.manifest.name,
            "precision": segmenter.manifest.precision,
            "backend": segmenter.backend_name,
            **signature_document(path, segmenter, self._is_trusted(path)),
            **({} if note is None else {"note": note}),
        }

    def _find_images(self) -> list[Path]:
        from yolact_runtime.media.inputs import find_inputs

        inputs = find_inputs(self.words)
        if inputs.failures:
            word, reason = inputs.failures[0]
            raise DatasetError(f"{word}: {reason}")
        for sentence in inputs.left_out:
            self.reporter.warn(sentence)
        if inputs.videos:
            self.reporter.warn(
                f"left out, because only images are compared: {counted(len(inputs.videos), 'video')}, "
                f"{inputs.videos[0]} first"
            )
        paths = list(inputs.images[: self.options.limit])
        if not paths:
            raise DatasetError(f"no image found in {' '.join(self.words)}")
        _require_files(paths)
        return paths

    def _require_same_classes(self, model: Sequence[str], reference: Sequence[str]) -> None:
        if tuple(model) == tuple(reference):
            return
        place = next((i for i, pair in enumerate(zip(model, reference, strict=False)) if pair[0] != pair[1]), None)
        if place is None:
            reason = f"{counted(len(model), 'class', 'classes')} and {len(reference)}"
        else:
            reason = f'class {place} is "{model[place]}" in one and "{reference[place]}" in the other'
        raise DatasetError(f"{self.model} and {self.against} cannot be compared: {reason}")


def _segment(segmenter: Segmenter, path: Path, frame: Any) -> Instances:
    try:
        return segmenter(frame)
    except (FrameError, BackendError) as error:
        # Leaving an image out would change the figures: the evaluation ends, and names the image.
        raise type(error)(f"{path}: {error}") from error


def _require_files(paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(str(path) for path in missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise DatasetError(
            f"{len(missing)} of the {counted(len(paths), 'image')} to compare do not exist: {shown}{more}"
        )


def _interval_document(intervals: _Intervals, settings: BootstrapSettings | None) -> dict[str, Any]:
    if intervals is None or settings is None:
        return {}
    return {
        "intervals": {
            "level": settings.confidence_level,
            "resamples": settings.num_resamples,
            "seed": settings.seed,
            **{
                group: {name: interval.document() for name, interval in members.items()}
                for group, members in intervals.items()
            },
        }
    }
