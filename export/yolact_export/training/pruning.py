"""Pruning of a checkpoint: narrowed, recovered by distillation, measured, and written as a new checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.batch import Batch
from yolact_calibration.data.dataset import AnnotatedImages, SampleSequence, iterate_batches
from yolact_calibration.data.image_sequence import ImageSequence, UnlabelledImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.pruning.latency import CachedTimer
from yolact_calibration.pruning.onnxruntime_timer import OnnxRuntimeTimer
from yolact_calibration.pruning.prune import Pruned, PruneOptions, PruneReport, prune
from yolact_calibration.training.recovery import Recovery
from yolact_calibration.training.training import Training, TrainingOptions
from yolact_calibration.training.training_state import Curve
from yolact_export.checkpoint.checkpoint import LoadedCheckpoint
from yolact_export.checkpoint.findings import Assumption
from yolact_export.checkpoint.note import ASSUMED, CheckpointNote, write_checkpoint
from yolact_export.model.yolact import Yolact
from yolact_export.training.evaluation import evaluate_model, find_instances, measure_model_agreement
from yolact_export.training.held_back import compare_held_back, held_back_labels
from yolact_export.training.progress_report import ProgressReport
from yolact_export.training.pruned_latency import measure_network, report_lines
from yolact_export.training.training_files import TrainingFiles
from yolact_export.training.training_page import prune_files, write_training_page
from yolact_plugins import __version__
from yolact_plugins.files import write_atomically
from yolact_plugins.staging import require_writable
from yolact_runtime.cpu.priors import make_priors
from yolact_runtime.option_numbers import MAX_COUNT, MAX_THREADS, MAX_WORKERS, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["PruneRequest", "PrunedCheckpoint", "prune_checkpoint"]

# Limits of repeated pruning if the measured network is slower than its layers promised; each round aims a little lower.
_MAX_ROUNDS, _MARGIN = 4, 0.98
Scores = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class PruneRequest:
    """Request for a pruning with optional recovery.

    Attributes:
        output: Path of the pruned ``.pth`` file to write; record, curve, layer times and state are written beside it.
        options: Amount of pruning, and the measure of importance.
        images: Unlabelled images, as the camera sees them.
        labelled: Images with labels to recover on, instead of `images`.
        evaluation: Annotated images for measuring AP; None measures agreement with the dense model, on some of `images`
            that are held back.
        recovery: Options of the recovery by distillation; None omits it.
        augment: Options of the augmentation in the recovery.
        num_importance_images: Number of images on which the importance is estimated.
        num_threads: Number of threads for measuring latency, as on the robot.
        num_workers: Number of processes that prepare batches.
        device: Either ``"cpu"`` or ``"cuda"``.
        restart: If True, discard an unfinished recovery of the same output.
        source: The dense checkpoint, for the report page; None if it is unknown.
        command_line: The command as typed, for the report page; empty if a program called this.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    output: Path
    options: PruneOptions
    images: UnlabelledImages
    labelled: AnnotatedImages | None = None
    evaluation: AnnotatedImages | None = None
    recovery: TrainingOptions | None = None
    augment: AugmentOptions = dataclasses.field(default_factory=lambda: AugmentOptions(expand=1.5))
    num_importance_images: int = 64
    num_threads: int = 1
    num_workers: int = 1
    device: str = "cpu"
    restart: bool = False
    source: Path | None = None
    command_line: str = ""

    def __post_init__(self) -> None:
        keep_between(
            self,
            {
                "num_importance_images": (1, MAX_COUNT),
                "num_threads": (1, MAX_THREADS),
                "num_workers": (0, MAX_WORKERS),
            },
        )

    @property
    def files(self) -> TrainingFiles:
        """Paths of all files that the pruning writes."""
        return TrainingFiles(self.output)


@dataclasses.dataclass(frozen=True)
class PrunedCheckpoint:
    """Result of a pruning.

    Attributes:
        path: Path of the checkpoint.
        record: Record as it was written beside the checkpoint.
        report: Report of what was removed.
        scores: Accuracy or agreement of ``"dense"``, ``"pruned"`` and, with a recovery, ``"recovered"``.
    """

    path: Path
    record: Mapping[str, Any]
    report: PruneReport
    scores: Mapping[str, Scores]


def prune_checkpoint(
    loaded: LoadedCheckpoint,
    request: PruneRequest,
    reporter: Reporter = SILENT,
) -> PrunedCheckpoint:
    """Prune, recover and write a checkpoint, with measurements. An unfinished recovery of the same output is continued.

    Args:
        loaded: Dense model; its parameters no longer require gradients.
        request: Options of the pruning.
        reporter: Reporter that receives the steps of the work, and shows the progress.

    Raises:
        PruningError: The latency cannot be reached, or nothing can be removed.
        DatasetError: The images cannot be used.
        TrainingError: The state on disk is of another recovery, or the loss is no longer finite.
        OSError: The output cannot be written, which is detected before anything is measured.
    """
    require_writable(*request.files.of_pruning)
    labelled_sha256 = _check_labelled(request, reporter)
    judge, images = _judge(loaded, request)
    pruned = _prune(loaded, request, images, reporter)
    report = pruned.report
    for line in report_lines(report):
        reporter.say(f"  {line}")
    scores = {"dense": judge(loaded.model), "pruned": judge(pruned.model)}
    reporter.say(f"  {_shown(scores['dense'])} dense, {_shown(scores['pruned'])} pruned")
    curve, held_back = None, None
    if request.recovery is not None:
        curve = _recover(loaded, pruned.model, images, request, judge, labelled_sha256, reporter)
        scores["recovered"] = judge(pruned.model)
        reporter.say(f"  {_shown(scores['recovered'])} recovered")
        held_back = judge.show(pruned.model)
    finished = _finish(loaded, pruned.model, report, scores, curve, request)
    if curve is not None and held_back is not None:
        files = prune_files(request.source, loaded.sha256, len(images), images.digest())
        write_training_page(request.files.curve, request.output, curve, held_back, request.command_line, files)
    return finished


def _check_labelled(request: PruneRequest, reporter: Reporter) -> str:
    """Decode all labelled images before anything is measured; return the digest of those to recover on, or "".

    Raises:
        DatasetError: Some cannot be used, or have no outlines to learn from.
    """
    if request.evaluation is not None:
        request.evaluation.check(reporter)
    if request.labelled is None or request.recovery is None:
        return ""
    annotations = request.labelled.annotations
    if annotations.has_boxes_only:
        raise DatasetError(f"{annotations.source}: the labels have boxes only; a recovery learns from outlines")
    return request.labelled.check(reporter)


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Scores and predictions of a model: AP against labels, or agreement with the results of the dense model."""

    score: Callable[[Yolact], Scores]
    show: Callable[[Any], dict[str, Any]]

    def __call__(self, model: Any) -> Scores:
        was_training = model.training
        model.eval()
        scores = {name: None if value is None else round(value, 5) for name, value in self.score(model).items()}
        model.train(was_training)
        return scores


def _judge(loaded: LoadedCheckpoint, request: PruneRequest) -> tuple[_Judge, UnlabelledImages]:
    """Return the judge, and the images that it leaves for the other steps."""
    names = loaded.class_names
    evaluation = request.evaluation
    if evaluation is not None:
        judge = _Judge(
            lambda model: _figures(evaluate_model(model, evaluation, names), "AP"),
            lambda model: held_back_labels(model, evaluation, names),
        )
        return judge, request.images
    images, held = request.images.hold_back(0.1, request.options.seed)
    loaded.model.to(request.device)
    reference = find_instances(loaded.model, names, held.paths, held.reader)
    judge = _Judge(
        lambda model: _figures(measure_model_agreement(reference, model, names, held.reader), "agreement"),
        lambda model: compare_held_back(model, reference, held.reader, names),
    )
    return judge, images


def _figures(found: Any, word: str) -> Scores:
    return {f"box {word}": found.bbox["AP"], f"mask {word}": found.segm["AP"], f"mask {word}50": found.segm["AP50"]}


def _shown(scores: Scores) -> str:
    return ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in scores.items())


def _prune(loaded: LoadedCheckpoint, request: PruneRequest, images: UnlabelledImages, reporter: Reporter) -> Pruned:
    """Prune until the whole network, exported and measured, is within the requested latency.

    Layers are measured one by one; the time of a network outside its convolutions is only known when it runs.
    """
    spec = loaded.config.input_spec()
    loaded.model.to(request.device)
    tensors = [tensor.to(request.device) for tensor in images.tensors(spec, request.num_importance_images)]
    timer = CachedTimer(OnnxRuntimeTimer(request.num_threads), request.files.layer_times)
    reporter.say(f"measuring layers on {timer.backend}")
    options, wanted = request.options, 1 - request.options.removed_latency

    for _ in range(_MAX_ROUNDS):
        pruned = prune(
            loaded.model, tensors, _priors(loaded).to(request.device), options, timer=timer, reporter=reporter
        )
        report = measure_network(loaded, pruned.model, pruned.report, request.files.network_times, request.num_threads)
        assert report.measured_ms is not None
        ratio = report.measured_ms[1] / report.measured_ms[0]
        pruned = dataclasses.replace(pruned, report=report)
        if ratio <= wanted:
            return pruned
        reporter.say(
            f"  the network takes {ratio:.1%} of the dense one's time, {wanted:.0%} was requested: pruning more"
        )
        convolutions = options.convolution_ratio * wanted / ratio * _MARGIN
        options = dataclasses.replace(options, rest_share=(wanted - convolutions) / (1 - convolutions))
    reporter.warn(f"the pruned network takes {ratio:.1%} of the dense one's time, {wanted:.0%} was requested")
    return pruned


def _priors(loaded: LoadedCheckpoint) -> torch.Tensor:
    config = loaded.config
    return torch.from_numpy(make_priors(config.prior_spec(), config.input_height, config.input_width))


def _recover(
    loaded: LoadedCheckpoint,
    model: torch.nn.Module,
    images: UnlabelledImages,
    request: PruneRequest,
    judge: _Judge,
    labelled_sha256: str,
    reporter: Reporter,
) -> Curve:
    options = request.recovery
    assert options is not None
    spec, priors = loaded.config.input_spec(), _priors(loaded)
    samples: SampleSequence | ImageSequence
    if request.labelled is not None:
        samples = SampleSequence(request.labelled, spec, request.augment, options.seed)
        data = labelled_sha256
    else:
        samples = ImageSequence(images, spec, request.augment, options.seed)
        data = images.digest()
    widths = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    identity = {"checkpoint": loaded.identity, "widths": str(sorted(widths.items())), "data_sha256": data}
    training = Training(
        model,
        Recovery(loaded.model, priors),
        functools.partial(_batches, samples, options.batch_size, request.num_workers),
        options,
        request.files.state,
        {**identity, "augment": str(request.augment)},
        lambda student: {name: value for name, value in judge(student).items() if value is not None},
    )
    if request.restart:
        request.files.discard_state()
    if done := training.resume():
        reporter.say(f"  continuing the recovery after step {done}, from {request.files.state}")
    curve = training.run(ProgressReport(reporter))
    model.eval()
    return curve


def _batches(
    samples: SampleSequence | ImageSequence, batch_size: int, num_workers: int, first: int, last: int
) -> Iterator[Batch]:
    return iterate_batches(samples, batch_size, first, last, num_workers)


def _finish(
    loaded: LoadedCheckpoint,
    model: torch.nn.Module,
    report: PruneReport,
    scores: Mapping[str, Scores],
    curve: Curve | None,
    request: PruneRequest,
) -> PrunedCheckpoint:
    provenance = {
        "pruned_from": loaded.identity,
        "removed_latency": str(request.options.removed_latency),
        "latency_backend": report.backend,
        "yolact-deploy": __version__,
        **{name: importlib.metadata.version(name) for name in ("torch", "torch-pruning")},
    }
    if assumptions := [finding for finding in loaded.findings if isinstance(finding, Assumption)]:
        provenance[ASSUMED] = assumptions[0]
    write_checkpoint(request.output, model.state_dict(), CheckpointNote(loaded.config, loaded.class_names, provenance))
    record = {
        "checkpoint": request.output.name,
        "checkpoint_mb": round(request.output.stat().st_size / 1e6, 2),
        "provenance": provenance,
        "num_images": len(request.images),
        "images_sha256": request.images.digest(),
        "prune": dataclasses.asdict(request.options),
        "report": report.document(),
        "scores": dict(scores),
        "recovery": None if request.recovery is None else dataclasses.asdict(request.recovery),
        "curve": None if curve is None else curve.document(),
    }
    write_atomically(request.files.record, (json.dumps(record, indent=1) + "\n").encode())
    return PrunedCheckpoint(request.output, record, report, scores)
