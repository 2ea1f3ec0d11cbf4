"""One run of ``yolact-bench``: it opens the models, measures them side by side, and assembles the record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yolact_benchmarks.layers.engine_profile import profile_engine
from yolact_benchmarks.layers.layer_profile import profile_document, profile_network
from yolact_benchmarks.layers.network_operations import convolution_operations
from yolact_benchmarks.machine.machine_state import MachineWatch, judge_machine
from yolact_benchmarks.measure.cold_start import measure_cold_start
from yolact_benchmarks.measure.device_timer import DeviceModel
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.gpu_stages import copy_gigabytes_per_second
from yolact_benchmarks.measure.host_timer import HostModel
from yolact_benchmarks.measure.opened_model import OpenedModel, open_same_bundle
from yolact_benchmarks.measure.process_run import ProcessRun, find_frames, join_runs, open_gpu, open_models
from yolact_benchmarks.measure.repeated_runs import run_processes
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.speed_accuracy import measure_accuracy_of, measure_agreement_of
from yolact_benchmarks.peers.peers import find_peers, measure_peers
from yolact_benchmarks.report.document import case_document, machine_document
from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.errors import UsageError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.model.bundle import Bundle
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.network_parts import read_parts
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["run_bench", "run_results"]

_SHEET_PICTURES = 8


def run_bench(request: BenchRequest, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Run all measurements of a request.

    Args:
        request: Request of the run.
        reporter: Reporter of messages and of the progress.

    Returns:
        Entry ``"results"`` of the record; with ``with_pictures`` also ``"pictures"``, which are not recorded.

    Raises:
        YolactError: The model, the images or the options do not fit.
    """
    labels = _open_labels(request, reporter)
    results = run_results(join_runs(run_processes(request, reporter)))
    _add_cold_starts(request, results, reporter)
    _add_peers_and_layers(request, results, reporter)
    _add_accuracy(request, labels, results, reporter)
    return results


def _open_labels(request: BenchRequest, reporter: Reporter) -> AnnotatedImages | None:
    """Open the labels and check all images, so that errors in them are reported before the speed is measured."""
    if request.annotations is None:
        return None
    labels = CocoAnnotations.from_file(request.annotations)
    data = AnnotatedImages.open(labels, Path(request.images[0]), request.rules, request.reader())
    for finding in data.all_findings:
        reporter.warn(finding)
    if labels.has_boxes_only:
        reporter.warn(f"{request.annotations}: the labels have boxes only: there is no mask AP")
    data.check(reporter)
    return data


def run_results(run: ProcessRun) -> dict[str, Any]:
    """Return the entry ``"results"`` of a record, as far as a run determines it."""
    reasons = judge_machine(run.machine)
    memory = [sample.gpu.memory_mb for sample in run.machine if sample.gpu and sample.gpu.memory_mb is not None]
    cases = []
    for name, series in run.series.items():
        document = case_document(name, run.stages[name], series, run.facts[name], reasons, run.missing_meters)
        cases.append(document | {"streaming": run.streaming[name]})
    machine = machine_document(run.machine, reasons, max(memory, default=None))
    return {"models": run.models, "cases": cases, "machine": machine}


def _add_peers_and_layers(request: BenchRequest, results: dict[str, Any], reporter: Reporter) -> None:
    if not (request.with_peers or request.with_layers):
        return
    if request.trust_engine and request.with_peers:
        reporter.warn("peers are left out: they run the network of a bundle, and an engine alone has none")
    with ExitStack() as stack:
        models = open_models(request, stack)
        if request.with_peers and not request.trust_engine:
            results["peers"] = _peers(request, models, find_frames(request)[0][-1], reporter)
        if request.with_layers:
            if request.trust_engine:
                reporter.warn("layer profiles cannot count operations: that takes the network of a bundle")
            results["layers"] = {model.precision: _layers(request, model) for model in models}


def _peers(
    request: BenchRequest, models: Sequence[OpenedModel], frames: FrameSet, reporter: Reporter
) -> dict[str, Any]:
    """Measure the peers, at the size and number of instances that were requested last."""
    ours = {model.precision: source for model in models if not isinstance(source := model.source, Segmenter)}
    if len(ours) < len(models):
        raise UsageError(f"peers are only measured with planted instances, which {models[0].backend} does not support")
    first, manifest = models[0].source, models[0].manifest
    # An engine's peers run the network that it was built from.
    bundle = first.bundle if isinstance(first, HostModel) else _float_network(request, manifest)
    reporter.status("preparing peers")
    count = request.instances[-1]
    peers = find_peers(request.checkpoint)
    with ExitStack() as stack:
        watch = MachineWatch(open_gpu(stack)[0])
        return measure_peers(ours, bundle, peers, frames, count, request.options, request.plan, watch, reporter)


def _layers(request: BenchRequest, model: OpenedModel) -> dict[str, Any]:
    engine = model.source.segmenter.network if isinstance(model.source, DeviceModel) else None
    if isinstance(engine, TensorRtBackend):
        operations, parts = None, None
        if not request.trust_engine:
            network = _float_network(request, model.manifest).network
            operations, parts = convolution_operations(network), read_parts(network)
        return profile_document(profile_engine(engine, operations, parts), copy_gigabytes_per_second(engine.device))
    if model.backend != "onnxruntime-cpu" or not isinstance(model.source, HostModel):
        return {"not_measured": f"layer profiles of {model.backend} are not implemented"}
    return profile_document(profile_network(model.source.bundle.network, model.manifest.input, request.num_threads))


def _float_network(request: BenchRequest, manifest: Manifest) -> Bundle:
    """Return the network that an engine was built from or that was quantised; nodes have the same names in all."""
    folder = request.model if request.model.is_dir() else request.model.parent
    return open_same_bundle(request, folder, "fp32", manifest)


def _add_cold_starts(request: BenchRequest, results: dict[str, Any], reporter: Reporter) -> None:
    size = results["cases"][-1]["frames"]["sizes"][-1]
    for document in results["models"]:
        if not request.num_cold_starts:
            document["cold_start"] = {"not_measured": "not asked for"}
            continue
        reporter.status(f"cold start: {document['precision']}")
        precision = document["precision"] if request.model.is_dir() else None
        found = measure_cold_start(
            request.model,
            document["backend"],
            precision,
            request.num_threads,
            size,
            request.num_cold_starts,
            request.verify_keys,
            request.trust_engine,
        )
        document["cold_start"] = {**found, "frame": list(size)}


def _add_accuracy(
    request: BenchRequest, labels: AnnotatedImages | None, results: dict[str, Any], reporter: Reporter
) -> None:
    documents = results["models"]
    precisions = [document["precision"] for document in documents]
    has_pictures = not request.is_live
    wants_sheet = request.with_pictures and has_pictures and len(documents) > 1
    if not (request.annotations or request.against or wants_sheet):
        return
    options = SegmenterOptions(num_threads=request.num_threads)
    _, paths = find_frames(request)
    reader = request.reader()
    with ExitStack() as stack:

        def opened(path: Path, precision: str | None) -> Segmenter:
            return stack.enter_context(request.open_segmenter(path, documents[0]["backend"], options, precision))

        is_folder = request.model.is_dir()
        segmenters = {name: opened(request.model, name if is_folder else None) for name in precisions}
        accuracy: dict[str, Any] = {}
        if labels is not None:
            accuracy = measure_accuracy_of(segmenters, labels, reporter)
        elif request.against:
            reference = opened(request.against, "fp32" if request.against.is_dir() else None)
            accuracy, _, _ = measure_agreement_of(segmenters, reference, paths, reader, reporter)
        for document in documents:
            if document["precision"] in accuracy:
                document["accuracy"] = accuracy[document["precision"]]
        if wants_sheet:
            results["pictures"] = _pictures(segmenters, paths[:_SHEET_PICTURES], reporter, reader)


def _pictures(
    segmenters: dict[str, Segmenter], paths: Sequence[Path], reporter: Reporter, reader: ImageReader
) -> list[dict[str, Any]]:
    """Draw the first precision beside the last one, in the images that differ most."""
    from yolact_calibration.report.contact_sheet import draw_sheet

    first, *_, last = segmenters
    other = {last: segmenters[last]}
    _, meters, found = measure_agreement_of(other, segmenters[first], paths, reader, reporter)
    names = segmenters[first].class_names
    images = meters[last].measure().images
    sheet = draw_sheet(images, lambda name: reader.read(Path(name)), found[""], found[last], names)
    return [{**image, "sides": [first.upper(), last.upper()]} for image in sheet]
