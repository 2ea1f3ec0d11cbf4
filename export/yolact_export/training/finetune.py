"""Fine-tuning: from a start model and a data set to a checkpoint, its record and its training curve."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.batch import Batch
from yolact_calibration.data.dataset import AnnotatedImages, SampleSequence, iterate_batches, learnable_images
from yolact_calibration.errors import DatasetError, TextError
from yolact_calibration.evaluation.accuracy import Accuracy
from yolact_calibration.evaluation.categories import match_categories
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.options import FileRules
from yolact_calibration.training.loss import YolactLoss
from yolact_calibration.training.torch_device import has_safe_bfloat16
from yolact_calibration.training.training import Progress, Training, TrainingOptions
from yolact_calibration.training.training_state import Curve
from yolact_export.checkpoint.checkpoint import CheckpointOptions
from yolact_export.checkpoint.findings import say_findings
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.errors import UsageError
from yolact_export.model.config import LEAST_SIDE_PX
from yolact_export.model.yolact import Yolact
from yolact_export.training.evaluation import evaluate_model
from yolact_export.training.held_back import held_back_labels
from yolact_export.training.progress_report import ProgressReport
from yolact_export.training.training_files import TrainingFiles
from yolact_export.training.training_page import finetune_files, write_training_page
from yolact_export.training.training_start import StartOptions, start_model
from yolact_plugins import __version__
from yolact_plugins.file_errors import naming
from yolact_plugins.files import counted, real_path, write_atomically
from yolact_plugins.staging import require_writable
from yolact_plugins.text import read_json
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.model.manifest_limits import MAX_SIDE
from yolact_runtime.option_numbers import MAX_WORKERS, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["FinetuneOptions", "Finetuned", "check_outputs", "evaluate_model", "finetune", "split_annotations"]


@dataclasses.dataclass(frozen=True)
class FinetuneOptions:
    """Options of a fine-tuning.

    Attributes:
        source: Name of a configuration, or path of a checkpoint.
        annotations: COCO file of the training images.
        images: Folder of the training images.
        output: Path of the ``.pth`` file to write; record, curve and state are written beside it.
        training: Options of the training loop.
        augment: Options of the augmentation.
        validation_annotations: COCO file of other images for measuring accuracy; None holds back some training images.
        validation_images: Folder of the validation images; None is `images`.
        validation_fraction: Fraction of the images that is held back; 0 holds none back and measures nothing.
        checkpoint: Known properties of a checkpoint as the source that it does not state.
        input_size: Side of the square input in pixels; None keeps that of the source.
        prior_scales: Prior sides in pixels for each of P3..P7; None keeps those of the source.
        backbone_weights: Path of ImageNet weights for a fresh backbone.
        device: Either ``"cpu"`` or ``"cuda"``.
        num_workers: Number of processes that prepare batches.
        restart: If True, discard an unfinished training of the same output.
        command_line: Command line for the report; empty if there was none.
        rules: Rules for images that are missing or outside of their folder.
        reader: Reader for all images.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    source: str
    annotations: Path
    images: Path
    output: Path
    training: TrainingOptions
    augment: AugmentOptions = dataclasses.field(default_factory=AugmentOptions)
    validation_annotations: Path | None = None
    validation_images: Path | None = None
    validation_fraction: float = 0.1
    checkpoint: CheckpointOptions = dataclasses.field(default_factory=CheckpointOptions)
    input_size: int | None = None
    prior_scales: tuple[tuple[float, ...], ...] | None = None
    backbone_weights: Path | None = None
    device: str = "cpu"
    num_workers: int = 1
    restart: bool = False
    command_line: str = ""
    rules: FileRules = dataclasses.field(default_factory=FileRules)
    reader: ImageReader = dataclasses.field(default_factory=ImageReader)

    def __post_init__(self) -> None:
        keep_between(
            self,
            {"num_workers": (0, MAX_WORKERS), "input_size": (LEAST_SIDE_PX, MAX_SIDE)},
            {"validation_fraction": (0, 1)},
        )
        if self.validation_fraction == 1:
            raise UsageError("validation_fraction must be below 1, found 1: nothing would be left to train on")

    @property
    def files(self) -> TrainingFiles:
        """Paths of all files that the training writes."""
        return TrainingFiles(self.output)


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """Result of a training.

    Attributes:
        output: Path of the checkpoint.
        record: Record as it was written beside the checkpoint.
        accuracy: Accuracy on the validation images; None without validation.
    """

    output: Path
    record: Mapping[str, Any]
    accuracy: Accuracy | None


def split_annotations(
    annotations: CocoAnnotations, fraction: float, seed: int
) -> tuple[CocoAnnotations, CocoAnnotations | None]:
    """Split images into training and validation; which are held back depends on the ids and the seed only."""
    if fraction == 0:
        return annotations, None
    count = max(1, round(len(annotations) * fraction))
    if count >= len(annotations):
        raise UsageError(
            f"holding back {fraction:g} of {len(annotations)} images leaves none to train on; give more images, or "
            f"--validation-fraction 0"
        )
    ids = [image.image_id for image in annotations.images]
    held = {ids[place] for place in np.random.default_rng([seed, 7]).permutation(len(ids))[:count].tolist()}
    return annotations.only(i for i in ids if i not in held), annotations.only(held)


def finetune(
    options: FinetuneOptions,
    reporter: Reporter = SILENT,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Finetuned:
    """Train, or continue an unfinished training of the same output, and write the checkpoint.

    All annotations and all images are checked before the first step. However the training ends, the state of the last
    complete step is kept beside the output.

    Args:
        options: Options of the fine-tuning.
        reporter: Reporter that receives the steps of the work, and shows the progress.
        on_progress: Function that receives every training step, as data.

    Raises:
        UsageError: An output would overwrite an unrelated file.
        DatasetError, ConfigError, CheckpointError: An input cannot be used.
        TrainingError: The state on disk is of another training, or the loss is no longer finite.
    """
    check_outputs(options)
    train, validation = _data(options, reporter)
    start = start_model(
        StartOptions(
            options.source,
            train.annotations.category_names,
            options.input_size,
            options.prior_scales,
            options.backbone_weights,
            options.training.seed,
            options.checkpoint,
        )
    )
    say_findings(start.findings, reporter)
    model = start.model.to(options.device)
    options = dataclasses.replace(options, training=_with_safe_autocast(options, model, reporter))
    facts = _facts(options, train, validation, start.identity, reporter)
    samples = SampleSequence(train, model.config.input_spec(), options.augment, options.training.seed)
    num_held = len(validation.annotations) if validation is not None else 0
    count = counted(samples.epoch_length, "image")
    reporter.say(f"  {count} with instances to train on, {num_held} to measure accuracy on")
    evaluation = None if validation is None else _Evaluation(validation, train.annotations.category_names)
    training = Training(
        model,
        YolactLoss(torch.from_numpy(_priors(model))),
        functools.partial(_batches, samples, options),
        options.training,
        options.files.state,
        facts,
        evaluation,
    )
    curve = _train(training, options, reporter, on_progress)
    model.eval()
    accuracy = None if evaluation is None else evaluation.latest or evaluation.measure(model)
    return _finish(options, model, train.annotations.category_names, accuracy, curve, facts, validation)


def _train(
    training: Training, options: FinetuneOptions, reporter: Reporter, on_progress: Callable[[Progress], None]
) -> Curve:
    """Train to the end, from the state on disk if there is one, and report the saved state if an error ends it."""
    if options.restart:
        options.files.discard_state()
    if done := training.resume():
        reporter.say(f"  continuing after step {done}, from {options.files.state}")
    report = ProgressReport(reporter)

    def tell(progress: Progress) -> None:
        report(progress)
        on_progress(progress)

    try:
        return training.run(tell)
    except BaseException:
        if training.saved_step:
            reporter.say(
                f"state kept in {options.files.state}; the same command continues after step {training.saved_step}"
            )
        raise


def check_outputs(options: FinetuneOptions) -> None:
    """Refuse outputs that would destroy unrelated files, before hours of work, and create their folder.

    Raises:
        UsageError: An output is one of the inputs, or a file that no training wrote.
        OSError: An output cannot be written.
    """
    if options.output.suffix != ".pth":
        raise UsageError(f"-o is the checkpoint to write and must end in .pth; found {options.output}")
    inputs = (Path(options.source), options.annotations, options.validation_annotations, options.backbone_weights)
    taken = {real_path(path): path for path in inputs if path is not None}
    outputs = options.files.of_training
    for path in outputs:
        if real_path(path) in taken:
            raise UsageError(f"-o {options.output} would overwrite {path}, which the training reads; name another file")
    if options.files.record.exists() and not _is_record(options.files.record):
        raise UsageError(
            f"-o {options.output} would overwrite {options.files.record}, which is not a record of a training; name "
            f"another file"
        )
    if not (options.files.record.exists() or options.files.state.exists()):
        for path in (options.output, options.files.curve):
            if path.is_file() and path.stat().st_size:
                raise UsageError(
                    f"-o {options.output} would overwrite {path}, which has no record or state of a training beside "
                    f"it; name another file, or remove it"
                )
    with naming(options.output):
        options.output.parent.mkdir(parents=True, exist_ok=True)
    require_writable(*outputs)


def _is_record(path: Path) -> bool:
    try:
        document = read_json(path)
    except TextError:
        return False
    return isinstance(document, dict) and {"checkpoint", "curve"} <= set(document)


def _with_safe_autocast(options: FinetuneOptions, model: Yolact, reporter: Reporter) -> TrainingOptions:
    training = options.training
    if not training.autocast:
        return training
    if has_safe_bfloat16(options.device, model.config.feature_sizes[-1]):
        reporter.say("  computing in bfloat16 (--autocast off: float32)")
        return training
    reporter.say("  computing in float32: P7 is a single pixel, where gradients in bfloat16 are wrong on this device")
    return dataclasses.replace(training, autocast=False)


def _data(options: FinetuneOptions, reporter: Reporter) -> tuple[AnnotatedImages, AnnotatedImages | None]:
    annotations = _trainable(CocoAnnotations.from_file(options.annotations))
    train = AnnotatedImages.open(annotations, options.images, options.rules, options.reader)
    if options.validation_annotations is None:
        _warn_of_labels(train, reporter)
        kept, held = split_annotations(train.annotations, options.validation_fraction, options.training.seed)
        held_images = None if held is None else dataclasses.replace(train, annotations=held)
        return dataclasses.replace(train, annotations=kept), held_images
    _warn_of_labels(train, reporter)
    labels = CocoAnnotations.from_file(options.validation_annotations)
    validation = AnnotatedImages.open(
        labels, options.validation_images or options.images, options.rules, options.reader
    )
    _warn_of_labels(validation, reporter)
    _warn_of_overlap(train, validation, reporter)
    # Before the training, and not at the first evaluation.
    for finding in match_categories(train.annotations.category_names, labels).findings:
        reporter.warn(finding)
    return train, validation


def _warn_of_overlap(train: AnnotatedImages, validation: AnnotatedImages, reporter: Reporter) -> None:
    learned = {train.path(image).resolve() for image in train.annotations.images}
    count = sum(validation.path(image).resolve() in learned for image in validation.annotations.images)
    if count:
        reporter.warn(
            f"{count} of the {counted(len(validation.annotations), 'image')} to measure accuracy on "
            f"{'is' if count == 1 else 'are'} also trained on, so the accuracy is too optimistic: give others, or omit "
            f"--validation-annotations, so that some are held back"
        )


def _trainable(annotations: CocoAnnotations) -> CocoAnnotations:
    """Refuse labels from which no masks can be learned."""
    if annotations.has_boxes_only:
        raise DatasetError(
            f"{annotations.source}: the labels have boxes only ({counted(annotations.num_instances, 'annotation')} "
            f"without a segmentation); a segmentation model learns from outlines. Annotate polygons or masks"
        )
    if not learnable_images(annotations):
        raise DatasetError(
            f"{annotations.source}: there is nothing to learn: none of "
            f"{counted(annotations.num_instances, 'annotation')} in {counted(len(annotations), 'image')} is a single "
            f"object with an outline; annotate polygons or masks"
        )
    return annotations


def _warn_of_labels(data: AnnotatedImages, reporter: Reporter) -> None:
    """Warn about labels that are left out or doubtful, with counts.

    Raises:
        DatasetError: No outline covers a pixel.
    """
    annotations = data.annotations
    doubts = data.warn_of_doubts(reporter)
    if annotations.num_outlines and not doubts.num_drawn:
        raise DatasetError(
            f"{annotations.source}: no outline covers a pixel of its image, so there is nothing to learn or to find; "
            f"coordinates must be pixels, from 0 to the image's width and height"
        )
    if count := annotations.num_instances - annotations.num_outlines:
        reporter.warn(
            f"{annotations.source}: {count} of {annotations.num_instances} annotations with a box and no "
            f"segmentation: they are not used for training, and masks are not evaluated there"
        )


def _facts(
    options: FinetuneOptions,
    train: AnnotatedImages,
    validation: AnnotatedImages | None,
    start: str,
    reporter: Reporter,
) -> dict[str, str]:
    """Return the inputs that determine the course of the training, beside its options; decodes every image."""
    return {
        "start": start,
        "data_sha256": train.check(reporter),
        "validation_sha256": validation.check(reporter) if validation is not None else "none",
        "augment": str(options.augment),
        "input_size": str(options.input_size),
        "prior_scales": str(options.prior_scales),
        "device": options.device,
        **({} if options.reader.bit_depth is None else {"bit_depth": str(options.reader.bit_depth)}),
    }


def _batches(samples: SampleSequence, options: FinetuneOptions, first: int, last: int) -> Iterator[Batch]:
    return iterate_batches(samples, options.training.batch_size, first, last, options.num_workers)


def _priors(model: Yolact) -> np.ndarray[Any, np.dtype[np.float32]]:
    config = model.config
    return make_priors(config.prior_spec(), config.input_height, config.input_width)


class _Evaluation:
    """Evaluation on images that are not trained on, with the latest result."""

    def __init__(self, data: AnnotatedImages, class_names: tuple[str, ...]) -> None:
        self._data = data
        # Class names of the model: the categories of other images may be in another order.
        self._class_names = class_names
        self.latest: Accuracy | None = None

    def measure(self, model: Yolact) -> Accuracy:
        """Measure the accuracy of a model in eval mode."""
        self.latest = evaluate_model(model, self._data, self._class_names)
        return self.latest

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return figures for the curve."""
        assert isinstance(model, Yolact)
        accuracy = self.measure(model)
        values = {"box AP": accuracy.bbox["AP"], "mask AP": accuracy.segm["AP"], "mask AP50": accuracy.segm["AP50"]}
        return {name: round(value, 5) for name, value in values.items() if value is not None}


def _finish(
    options: FinetuneOptions,
    model: Yolact,
    names: tuple[str, ...],
    accuracy: Accuracy | None,
    curve: Curve,
    facts: Mapping[str, str],
    validation: AnnotatedImages | None,
) -> Finetuned:
    versions = {"yolact-deploy": __version__, "torch": importlib.metadata.version("torch")}
    provenance = {"start": facts["start"], "data_sha256": facts["data_sha256"], **versions}
    write_checkpoint(options.output, model.state_dict(), CheckpointNote(model.config, names, provenance))
    record = {
        "checkpoint": options.output.name,
        "checkpoint_mb": round(options.output.stat().st_size / 1e6, 2),
        "config": dataclasses.asdict(model.config),
        "class_names": names,
        "training": dataclasses.asdict(options.training),
        "augment": dataclasses.asdict(options.augment),
        "facts": dict(facts),
        "versions": versions,
        "validation": accuracy.document() if accuracy is not None else None,
        "curve": curve.document(),
    }
    write_atomically(options.files.record, (json.dumps(record, indent=1) + "\n").encode())
    held_back = None if validation is None else held_back_labels(model, validation, names)
    files = finetune_files(options.source, options.backbone_weights, options.annotations, facts["data_sha256"])
    write_training_page(options.files.curve, options.output, curve, held_back, options.command_line, files)
    return Finetuned(options.output, record, accuracy)
