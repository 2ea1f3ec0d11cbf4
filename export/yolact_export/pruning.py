"""Pruning a checkpoint: narrower, taught by the dense model, measured, and written as a checkpoint of its own."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from yolact_calibration.augment import AugmentOptions
from yolact_calibration.batch import Batch
from yolact_calibration.dataset import AnnotatedImages, SampleSequence, iterate_batches
from yolact_calibration.image_sequence import ImageSequence, UnlabelledImages
from yolact_calibration.latency import CachedTimer
from yolact_calibration.network_timer import time_networks_ms
from yolact_calibration.onnxruntime_timer import OnnxRuntimeTimer
from yolact_calibration.prune import PruneOptions, PruneReport, prune
from yolact_calibration.recovery import Recovery
from yolact_calibration.training import Progress, Training, TrainingOptions
from yolact_calibration.training_curve import draw_curve
from yolact_calibration.training_state import Curve
from yolact_export.checkpoint import LoadedCheckpoint
from yolact_export.checkpoint_note import CheckpointNote, write_checkpoint
from yolact_export.evaluation import evaluate_model, find_instances, measure_model_agreement
from yolact_export.model.yolact import Yolact
from yolact_export.onnx_export import ExportOptions, export_network
from yolact_export.onnx_file import write_model
from yolact_runtime.priors import make_priors
from yolact_runtime.terminal import write_atomically

__all__ = ["PruneRequest", "PrunedCheckpoint", "prune_checkpoint"]

Say = Callable[[str], None]
Scores = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class PruneRequest:
    """What to prune by how much, and how to recover.

    Attributes:
        output: The pruned ``.pth`` to write; record, curve, layer times and state lie beside it.
        options: How much, and by which measure.
        images: Unlabelled, as the camera sees them.
        labelled: Images with labels to recover on, instead of `images`.
        evaluation: Annotated images to measure AP on; None measures agreement with the dense model, on some of
            `images` that are held back.
        recovery: How the pruned model is taught; None leaves it as it is.
        augment: How images are changed in the recovery.
        num_importance_images: Images that the importance is estimated on.
        num_threads: Threads that latency is measured with, as the robot will use.
        num_workers: Processes that prepare batches.
        device: ``"cpu"`` or ``"cuda"``.
        restart: Discard an unfinished recovery of the same output.
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

    @property
    def state_path(self) -> Path:
        """The unfinished recovery."""
        return self.output.with_name(self.output.name + ".state")

    @property
    def record_path(self) -> Path:
        """The record."""
        return self.output.with_suffix(".json")

    @property
    def curve_path(self) -> Path:
        """The picture of the recovery."""
        return self.output.with_suffix(".html")

    @property
    def latency_path(self) -> Path:
        """Measured layer times: a second run with the same file chooses the same widths."""
        return self.output.with_name(self.output.name + ".latency.json")


@dataclasses.dataclass(frozen=True)
class PrunedCheckpoint:
    """What a pruning produced.

    Attributes:
        path: The checkpoint.
        record: As written beside it.
        report: What was removed.
        scores: ``"dense"``, ``"pruned"`` and, with a recovery, ``"recovered"`` -> accuracy or agreement.
    """

    path: Path
    record: Mapping[str, Any]
    report: PruneReport
    scores: Mapping[str, Scores]


def prune_checkpoint(
    loaded: LoadedCheckpoint,
    request: PruneRequest,
    say: Say = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> PrunedCheckpoint:
    """Prune, measure, recover, measure, write. An unfinished recovery of the same output is continued.

    Raises:
        PruningError: The latency cannot be reached, or nothing can be removed.
        DatasetError: The images cannot be used.
        TrainingError: The state on disk is of another recovery, or the loss is not finite any more.
    """
    judge, images = _judge(loaded, request)
    pruned = _prune(loaded, request, images, say)
    report = _measure(loaded, pruned.model, pruned.report, request)
    for line in report_lines(report):
        say(f"  {line}")
    scores = {"dense": judge(loaded.model), "pruned": judge(pruned.model)}
    say(f"  {_shown(scores['dense'])} dense, {_shown(scores['pruned'])} pruned")
    curve = None
    if request.recovery is not None:
        curve = _recover(loaded, pruned.model, images, request, judge, say, on_progress)
        scores["recovered"] = judge(pruned.model)
        say(f"  {_shown(scores['recovered'])} recovered")
    return _finish(loaded, pruned.model, report, scores, curve, request)


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Scores a model: AP against labels, or agreement with what the dense model found."""

    score: Callable[[Yolact], Scores]

    def __call__(self, model: Any) -> Scores:
        was_training = model.training
        model.eval()
        scores = {name: None if value is None else round(value, 5) for name, value in self.score(model).items()}
        model.train(was_training)
        return scores


def _judge(loaded: LoadedCheckpoint, request: PruneRequest) -> tuple[_Judge, UnlabelledImages]:
    """The judge, and the images that it leaves to work with."""
    names = loaded.class_names
    evaluation = request.evaluation
    if evaluation is not None:
        return _Judge(lambda model: _figures(evaluate_model(model, evaluation, names), "AP")), request.images
    images, held = request.images.hold_back(0.1, request.options.seed)
    loaded.model.to(request.device)
    reference = find_instances(loaded.model, names, held.paths)
    return _Judge(lambda model: _figures(measure_model_agreement(reference, model, names), "agreement")), images


def _figures(found: Any, word: str) -> Scores:
    return {f"box {word}": found.bbox["AP"], f"mask {word}": found.segm["AP"], f"mask {word}50": found.segm["AP50"]}


def _shown(scores: Scores) -> str:
    return ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in scores.items())


def _prune(loaded: LoadedCheckpoint, request: PruneRequest, images: UnlabelledImages, say: Say) -> Any:
    spec = loaded.config.input_spec()
    loaded.model.to(request.device)
    tensors = [tensor.to(request.device) for tensor in images.tensors(spec, request.num_importance_images)]
    timer = CachedTimer(OnnxRuntimeTimer(request.num_threads), request.latency_path)
    say(f"measuring layers on {timer.backend}")
    return prune(loaded.model, tensors, _priors(loaded).to(request.device), request.options, timer=timer)


def _priors(loaded: LoadedCheckpoint) -> torch.Tensor:
    config = loaded.config
    return torch.from_numpy(make_priors(config.prior_spec(), config.input_height, config.input_width))


def _measure(
    loaded: LoadedCheckpoint, model: torch.nn.Module, report: PruneReport, request: PruneRequest
) -> PruneReport:
    """The report with the times of the whole networks, exported as they would be."""
    with tempfile.TemporaryDirectory(prefix="yolact-prune-") as folder:
        paths = {}
        for name, network in (("dense", loaded.model), ("pruned", model)):
            assert isinstance(network, Yolact)
            exported = export_network(dataclasses.replace(loaded, model=network.cpu()), ExportOptions())
            write_model(exported, paths.setdefault(name, Path(folder, f"{name}.onnx")))
            network.to(request.device)
        times = time_networks_ms(paths, loaded.config.input_spec(), num_threads=request.num_threads)
    return report.with_measured_ms(times["dense"], times["pruned"])


def report_lines(report: PruneReport) -> list[str]:
    """A table for people: what there was, what is left."""
    rows = [
        ("parameters", *(f"{count / 1e6:.2f} M" for count in report.num_parameters)),
        ("GFLOPs", *(f"{value:.2f}" for value in report.gflops)),
        *((block, *(f"{ms:.2f} ms" for ms in pair)) for block, pair in report.block_ms.items()),
        ("convolutions", *(f"{ms:.2f} ms" for ms in report.estimated_ms)),
    ]
    lines = [f"{'':18}{'dense':>12}{'pruned':>12}"]
    if report.measured_ms is not None:
        before, after = report.measured_ms
        rows.append((f"network ({after / before:.0%})", f"{before:.2f} ms", f"{after:.2f} ms"))
    return lines + [f"{name:18}{before:>12}{after:>12}" for name, before, after in rows]


def _recover(
    loaded: LoadedCheckpoint,
    model: torch.nn.Module,
    images: UnlabelledImages,
    request: PruneRequest,
    judge: _Judge,
    say: Say,
    on_progress: Callable[[Progress], None],
) -> Curve:
    options = request.recovery
    assert options is not None
    spec, priors = loaded.config.input_spec(), _priors(loaded)
    samples: SampleSequence | ImageSequence
    if request.labelled is not None:
        samples = SampleSequence(request.labelled, spec, request.augment, options.seed)
        data = request.labelled.digest()
    else:
        samples = ImageSequence(images, spec, request.augment, options.seed)
        data = images.digest()
    widths = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    identity = {"checkpoint": loaded.sha256, "widths": str(sorted(widths.items())), "data_sha256": data}
    training = Training(
        model,
        Recovery(loaded.model, priors),
        functools.partial(_batches, samples, options.batch_size, request.num_workers),
        options,
        request.state_path,
        {**identity, "augment": str(request.augment)},
        lambda student: {name: value for name, value in judge(student).items() if value is not None},
    )
    if request.restart:
        request.state_path.unlink(missing_ok=True)
    if done := training.resume():
        say(f"  continuing the recovery after step {done}, from {request.state_path}")
    curve = training.run(on_progress)
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
        "pruned_from": loaded.sha256,
        "removed_latency": str(request.options.removed_latency),
        "latency_backend": report.backend,
        **{name: importlib.metadata.version(name) for name in ("yolact-deploy", "torch", "torch-pruning")},
    }
    write_checkpoint(request.output, model.state_dict(), CheckpointNote(loaded.config, loaded.class_names, provenance))
    record = {
        "checkpoint": request.output.name,
        "provenance": provenance,
        "num_images": len(request.images),
        "images_sha256": request.images.digest(),
        "prune": dataclasses.asdict(request.options),
        "report": report.document(),
        "scores": dict(scores),
        "recovery": None if request.recovery is None else dataclasses.asdict(request.recovery),
        "curve": None if curve is None else curve.document(),
    }
    write_atomically(request.record_path, (json.dumps(record, indent=1) + "\n").encode())
    if curve is not None:
        write_atomically(request.curve_path, draw_curve(curve, request.output.name).encode())
    return PrunedCheckpoint(request.output, record, report, scores)
