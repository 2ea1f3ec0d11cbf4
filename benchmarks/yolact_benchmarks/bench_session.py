"""One run of ``yolact-bench``: opens what was asked for, measures it side by side, and puts the record together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yolact_benchmarks.bench_document import case_document, machine_document
from yolact_benchmarks.bench_request import CAMERA, SYNTHETIC, BenchRequest
from yolact_benchmarks.cold_start import measure_cold_start
from yolact_benchmarks.device_timer import DeviceModel
from yolact_benchmarks.engine_profile import profile_engine
from yolact_benchmarks.frames import FrameSet, camera_frames, drawn_frames, read_frames
from yolact_benchmarks.host_timer import HostModel
from yolact_benchmarks.layer_profile import profile_document, profile_network
from yolact_benchmarks.machine_state import MachineWatch, judge_machine
from yolact_benchmarks.measurement import Case, Series, measure
from yolact_benchmarks.nvml import Nvml
from yolact_benchmarks.opened_model import OpenedModel, choose_precisions, open_model
from yolact_benchmarks.peers import find_peers, measure_peers
from yolact_benchmarks.power import Meters, find_meters
from yolact_benchmarks.speed_accuracy import measure_accuracy_of, measure_agreement_of
from yolact_benchmarks.streaming import measure_streaming
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.bundle import open_bundle
from yolact_runtime.errors import UsageError
from yolact_runtime.segmenter import Segmenter, SegmenterOptions
from yolact_runtime.terminal import Terminal

__all__ = ["run_bench"]

_SHEET_PICTURES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class _Entry:
    """A case, and what tells it from others."""

    case: Case
    facts: dict[str, Any]
    model: OpenedModel
    planted: int | None


def run_bench(request: BenchRequest, terminal: Terminal) -> dict[str, Any]:
    """Measure.

    Args:
        request: What.
        terminal: For talk and progress.

    Returns:
        The ``"results"`` of the record; with ``with_pictures`` also ``"pictures"``, which belong in no record.

    Raises:
        YolactError: The model, the pictures or the options do not fit.
    """
    with ExitStack() as stack:
        models = _open_models(request, terminal, stack)
        sets, paths = _frame_sets(request)
        entries = [entry for model in models for entry in _entries(request, model, sets)]
        gpu, no_gpu = _open_gpu(stack)
        meters = find_meters(gpu=gpu, no_gpu=no_gpu)
        stack.callback(meters.close)
        watch = MachineWatch(gpu)
        _say_plan(request, entries, terminal)
        series = measure([entry.case for entry in entries], request.plan, watch, meters, terminal.status)
        results = _results(entries, series, watch, meters)
        _add_streaming(request, entries, results, terminal)
        results["models"] = [model.document() for model in models]
        _add_cold_starts(request, models, sets, results, terminal)
        if request.with_peers:
            results["peers"] = _peers(request, models, sets[-1], watch, terminal)
        if request.with_layers:
            results["layers"] = {model.precision: _layers(model, request.num_threads) for model in models}
        _add_accuracy(request, models, paths, results, terminal)
    return results


def _peers(
    request: BenchRequest, models: Sequence[OpenedModel], frames: FrameSet, watch: MachineWatch, terminal: Terminal
) -> dict[str, Any]:
    """At the largest size and number of instances that were asked for last."""
    ours = {model.precision: source for model in models if not isinstance(source := model.source, Segmenter)}
    if len(ours) < len(models):
        raise UsageError(f"--peers needs numbers of instances that can be planted, which {models[0].backend} does not")
    first = models[0].source
    if isinstance(first, HostModel):
        bundle = first.bundle
    else:
        # An engine's peers run the network that it was built from.
        bundle = open_bundle(request.model if request.model.is_dir() else request.model.parent, "fp32")
    terminal.status("preparing peers")
    count = request.instances[-1]
    peers = find_peers(request.checkpoint)
    return measure_peers(ours, bundle, peers, frames, count, request.options, request.plan, watch, terminal.status)


def _layers(model: OpenedModel, num_threads: int) -> dict[str, Any]:
    if isinstance(model.source, DeviceModel) and isinstance(model.source.segmenter.network, TensorRtBackend):
        return profile_document(profile_engine(model.source.segmenter.network))
    if model.backend != "onnxruntime-cpu":
        return {"not_measured": f"{model.backend} has no profiler here yet"}
    return profile_document(profile_network(model.file, model.manifest.input, num_threads))


def _open_models(request: BenchRequest, terminal: Terminal, stack: ExitStack) -> list[OpenedModel]:
    with Segmenter.open(request.model, request.backend, request.options, _first_named(request)) as segmenter:
        backend = segmenter.backend_name
    chosen, told = choose_precisions(request.model, request.precisions, backend)
    for line in told:
        terminal.say(line)
    models = []
    for precision in chosen:
        model = open_model(request.model, backend, precision, request.options)
        stack.callback(model.close)
        models.append(model)
        terminal.say(f"{request.model}: {model.manifest.name} ({model.precision}) on {model.backend}")
    return models


def _first_named(request: BenchRequest) -> str | None:
    return next((name for name in request.precisions if name != "all"), None)


def _frame_sets(request: BenchRequest) -> tuple[list[FrameSet], tuple[Path, ...]]:
    if request.is_synthetic:
        return [drawn_frames(width, height) for width, height in request.sizes], ()
    if SYNTHETIC in request.images:
        raise UsageError("--images takes pictures or the word synthetic, not both")
    word, _, number = request.images[0].partition(":")
    if word == CAMERA and not Path(request.images[0]).exists():
        if len(request.images) > 1 or not (number.isdigit() or not number):
            raise UsageError("--images camera, or camera:1 for the second one, stands alone")
        return [camera_frames(int(number or 0))], ()
    frames, paths = read_frames(request.images)
    return [frames], paths


def _entries(request: BenchRequest, model: OpenedModel, sets: Sequence[FrameSet]) -> list[_Entry]:
    entries = []
    for count in request.instances:
        timer = model.timer(count)
        for frames in sets:
            shown = "found" if count is None else str(count)
            case = Case(f"{model.precision} {frames.name} {shown}", model.precision, timer, frames)
            facts = {
                "precision": model.precision,
                "backend": model.backend,
                "frames": {"name": frames.name, "source": frames.source, "sizes": frames.sizes},
                "instances": "found" if count is None else count,
            }
            entries.append(_Entry(case, facts, model, count))
    return entries


def _open_gpu(stack: ExitStack) -> tuple[Nvml | None, str]:
    try:
        gpu = Nvml()
    except OSError as error:
        return None, str(error)
    stack.callback(gpu.close)
    return gpu, ""


def _say_plan(request: BenchRequest, entries: Sequence[_Entry], terminal: Terminal) -> None:
    plan, num = request.plan, len(entries)
    until = f", or until every median is known to {plan.until_ci:.1%}" if plan.until_ci else ""
    terminal.say(
        f"measuring {num} configuration(s) in turns, {plan.duration_s:g} s each after {plan.warm_up_s:g} s of "
        f"warm-up{until}; about {num * (plan.duration_s + plan.warm_up_s):.0f} s"
    )


def _results(
    entries: Sequence[_Entry], series: dict[str, Series], watch: MachineWatch, meters: Meters
) -> dict[str, Any]:
    reasons = judge_machine(watch.samples)
    memory = [sample.gpu.memory_mb for sample in watch.samples if sample.gpu and sample.gpu.memory_mb is not None]
    return {
        "models": [],
        "cases": [case_document(e.case, series[e.case.name], e.facts, reasons, meters.missing) for e in entries],
        "machine": machine_document(watch.samples, reasons, max(memory, default=None)),
    }


def _add_streaming(
    request: BenchRequest, entries: Sequence[_Entry], results: dict[str, Any], terminal: Terminal
) -> None:
    for entry, document in zip(entries, results["cases"], strict=True):
        if request.streaming_s > 0:
            terminal.status(f"streaming: {entry.case.name}")
            document["streaming"] = measure_streaming(
                entry.case.timer.segmenter, entry.case.frames, request.streaming_s
            )
        else:
            document["streaming"] = {"not_measured": "not asked for"}


def _add_cold_starts(
    request: BenchRequest,
    models: Sequence[OpenedModel],
    sets: Sequence[FrameSet],
    results: dict[str, Any],
    terminal: Terminal,
) -> None:
    size = sets[-1].sizes[-1]
    for model, document in zip(models, results["models"], strict=True):
        if not request.num_cold_starts:
            document["cold_start"] = {"not_measured": "not asked for"}
            continue
        terminal.status(f"cold start: {model.precision}")
        precision = model.precision if request.model.is_dir() else None
        found = measure_cold_start(
            request.model, model.backend, precision, request.num_threads, size, request.num_cold_starts
        )
        document["cold_start"] = {**found, "frame": list(size)}


def _add_accuracy(
    request: BenchRequest,
    models: Sequence[OpenedModel],
    paths: tuple[Path, ...],
    results: dict[str, Any],
    terminal: Terminal,
) -> None:
    wants_sheet = request.with_pictures and bool(paths) and len(models) > 1
    if not (request.annotations or request.against or wants_sheet):
        return
    options = SegmenterOptions(num_threads=request.num_threads)
    with ExitStack() as stack:

        def opened(path: Path, precision: str | None) -> Segmenter:
            return stack.enter_context(Segmenter.open(path, models[0].backend, options, precision))

        is_folder = request.model.is_dir()
        segmenters = {
            model.precision: opened(request.model, model.precision if is_folder else None) for model in models
        }
        accuracy: dict[str, Any] = {}
        if request.annotations:
            from yolact_calibration.coco import CocoAnnotations

            labels = CocoAnnotations.from_file(request.annotations)
            accuracy = measure_accuracy_of(segmenters, labels, Path(request.images[0]), terminal.progress)
        elif request.against:
            reference = opened(request.against, "fp32" if request.against.is_dir() else None)
            accuracy, _, _ = measure_agreement_of(segmenters, reference, paths, terminal.progress)
        for document in results["models"]:
            if document["precision"] in accuracy:
                document["accuracy"] = accuracy[document["precision"]]
        if wants_sheet:
            results["pictures"] = _pictures(segmenters, paths[:_SHEET_PICTURES], terminal)


def _pictures(segmenters: dict[str, Segmenter], paths: Sequence[Path], terminal: Terminal) -> list[dict[str, Any]]:
    """The first precision beside the last one, in the pictures that differ most."""
    from yolact_calibration.contact_sheet import draw_sheet
    from yolact_runtime.media import read_image

    first, *_, last = segmenters
    other = {last: segmenters[last]}
    _, meters, found = measure_agreement_of(other, segmenters[first], paths, terminal.progress)
    names = segmenters[first].class_names
    images = meters[last].measure().images
    return draw_sheet(images, lambda name: read_image(Path(name)), found[""], found[last], names)
