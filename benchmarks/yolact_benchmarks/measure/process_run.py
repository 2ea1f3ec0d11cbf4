"""The measurements of one process, interleaved over all configurations, and the join of several processes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yolact_benchmarks.machine.machine_state import MachineSample, MachineWatch
from yolact_benchmarks.machine.nvml import Nvml
from yolact_benchmarks.machine.power import find_meters
from yolact_benchmarks.measure.frames import FrameSet, camera_frames, drawn_frames, read_frames
from yolact_benchmarks.measure.measurement import Case, Plan, Series, measure
from yolact_benchmarks.measure.opened_model import OpenedModel, choose_precisions, open_model
from yolact_benchmarks.measure.request import SYNTHETIC, BenchRequest
from yolact_benchmarks.measure.stages import Stage
from yolact_benchmarks.measure.streaming import join_streaming, measure_streaming
from yolact_benchmarks.measure.time_needed import WholeRun
from yolact_plugins.files import counted
from yolact_runtime.backends.onnxruntime import float16_note
from yolact_runtime.commands.signature_options import signature_words
from yolact_runtime.errors import UsageError
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["ProcessRun", "find_frames", "join_runs", "measure_models", "measure_request", "open_gpu", "open_models"]


@dataclasses.dataclass(frozen=True)
class ProcessRun:
    """Measurements of one process; picklable.

    Attributes:
        begun: Start of the measurement, seconds on the monotonic clock that all processes of a machine share.
        facts: Precision, backend, frames and number of instances of each case, by the name of the case.
        stages: Stages of the frame, by the name of the case.
        series: Measurements, by the name of the case.
        streaming: Throughput of the stream as a JSON object, by the name of the case.
        models: JSON objects that describe the models, in the order of the precisions.
        machine: Samples of the machine's state.
        missing_meters: Reasons why energy meters are unavailable.
    """

    begun: float
    facts: dict[str, dict[str, Any]]
    stages: dict[str, tuple[Stage, ...]]
    series: dict[str, Series]
    streaming: dict[str, dict[str, Any]]
    models: list[dict[str, Any]]
    machine: list[MachineSample]
    missing_meters: tuple[str, ...]


def join_runs(runs: Sequence[ProcessRun]) -> ProcessRun:
    """Join the runs of several processes with the same request, one after the other.

    A single run is returned unchanged.

    Args:
        runs: Runs in the order they were taken, at least one.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    begun = [run.begun for run in runs]
    machine = [
        dataclasses.replace(sample, seconds=round(sample.seconds + run.begun - first.begun, 3))
        for run in runs
        for sample in run.machine
    ]
    return dataclasses.replace(
        first,
        series={name: Series.joined([run.series[name] for run in runs], begun) for name in first.series},
        streaming={name: join_streaming([run.streaming[name] for run in runs]) for name in first.streaming},
        machine=machine,
    )


def measure_request(request: BenchRequest, whole: WholeRun | None, reporter: Reporter) -> ProcessRun:
    """Open the models and frames of a request and measure them in this process.

    Args:
        request: Request whose plan and streaming time are those of this process.
        whole: All processes together, for the line that estimates their total time; None prints no such line.
        reporter: Reporter of what is measured, and of the progress.

    Raises:
        YolactError: The model, the images or the options do not fit.
    """
    with ExitStack() as stack:
        models = open_models(request, stack, reporter)
        frames, _ = find_frames(request, reporter)
        return measure_models(request, models, frames, whole, reporter)


def measure_models(
    request: BenchRequest,
    models: Sequence[OpenedModel],
    sets: Sequence[FrameSet],
    whole: WholeRun | None,
    reporter: Reporter,
) -> ProcessRun:
    """Measure open models.

    Args:
        request: Request of this process.
        models: Open models; they stay open.
        sets: Sets of frames.
        whole: All processes together, for the line that estimates their total time; None prints no such line.
        reporter: Reporter of the progress.

    Raises:
        UsageError: A model cannot return the requested number of instances.
    """
    cases: list[Case] = []
    facts: dict[str, dict[str, Any]] = {}
    for model in models:
        for case, known in _cases(request, model, sets):
            cases.append(case)
            facts[case.name] = known
    reporter.say(_plan_line(request.plan, len(cases)))
    if whole is not None:
        reporter.say(whole.line(len(cases), len(models)))
    with ExitStack() as stack:
        gpu, no_gpu = open_gpu(stack)
        meters = find_meters(gpu=gpu, no_gpu=no_gpu)
        stack.callback(meters.close)
        watch, begun = MachineWatch(gpu), time.monotonic()
        series = measure(cases, request.plan, watch, meters, reporter)
        missing = tuple(meters.missing)
    return ProcessRun(
        begun,
        facts,
        {case.name: tuple(case.timer.stages) for case in cases},
        series,
        {case.name: _stream(request, case, reporter) for case in cases},
        [model.document() for model in models],
        watch.samples,
        missing,
    )


def _plan_line(plan: Plan, num: int) -> str:
    until = f", or until every median is known to {plan.until_ci:.1%}" if plan.until_ci else ""
    return (
        f"measuring {counted(num, 'configuration')} interleaved, {plan.duration_s:g} s each after {plan.warm_up_s:g} s "
        f"of warm-up{until}"
    )


def _stream(request: BenchRequest, case: Case, reporter: Reporter) -> dict[str, Any]:
    if not request.streaming_s:
        return {"not_measured": "not asked for"}
    reporter.status(f"streaming: {case.name}")
    return measure_streaming(case.timer.segmenter, case.frames, request.streaming_s)


def open_models(request: BenchRequest, stack: ExitStack, reporter: Reporter = SILENT) -> list[OpenedModel]:
    """Open the model in every requested precision.

    Args:
        request: Request of the run.
        stack: Stack that closes the models.
        reporter: Reporter of the models that are opened, and of the precisions that are left out.

    Raises:
        YolactError: A model cannot be opened, as in :func:`~yolact_benchmarks.measure.opened_model.open_model`.
    """
    first_named = next((name for name in request.precisions if name != "all"), None)
    with request.open_segmenter(request.model, request.backend, request.options, first_named) as segmenter:
        backend = segmenter.backend_name
    chosen, left_out = choose_precisions(request.model, request.precisions, backend)
    for line in left_out:
        reporter.say(line)
    models = []
    for precision in chosen:
        model = open_model(request, backend, precision)
        stack.callback(model.close)
        models.append(model)
        told = signature_words(model.signature)
        reporter.say(f"{request.model}: {model.manifest.name} ({model.precision}) on {model.backend}{told}")
        if note := float16_note(model.backend, model.precision):
            reporter.say(note)
    return models


def find_frames(request: BenchRequest, reporter: Reporter | None = None) -> tuple[list[FrameSet], tuple[Path, ...]]:
    """Read or draw the frames of a request; return them with the files of images.

    Args:
        request: Request of the run.
        reporter: Reporter of what is left out, and of warnings about the images; None if they were reported before.

    Raises:
        UsageError: Values of ``--images`` that exclude each other.
        MediaError: A camera or an image cannot be read.
    """
    if request.is_synthetic:
        return [drawn_frames(width, height) for width, height in request.sizes], ()
    if SYNTHETIC in request.images:
        raise UsageError("--images takes pictures or the word synthetic, not both")
    if request.is_live:
        number = request.images[0].partition(":")[2]
        if len(request.images) > 1 or not (number.isdigit() or not number):
            raise UsageError("--images camera (or camera:1 for the second one) cannot be combined with other frames")
        return [camera_frames(int(number or 0))], ()
    frames, paths = read_frames(
        request.images, request.reader(None if reporter is None else reporter.warn), reporter or SILENT
    )
    return [frames], paths


def _cases(request: BenchRequest, model: OpenedModel, sets: Sequence[FrameSet]) -> list[tuple[Case, dict[str, Any]]]:
    cases = []
    for count in request.instances:
        timer = model.timer(count)
        shown = "found" if count is None else str(count)
        for frames in sets:
            facts = {
                "precision": model.precision,
                "backend": model.backend,
                "frames": {"name": frames.name, "source": frames.source, "sizes": frames.sizes},
                "instances": "found" if count is None else count,
            }
            cases.append((Case(f"{model.precision} {frames.name} {shown}", model.precision, timer, frames), facts))
    return cases


def open_gpu(stack: ExitStack) -> tuple[Nvml | None, str]:
    """Open NVIDIA's management library, to be closed by `stack`; return None and the reason if that fails."""
    try:
        gpu = Nvml()
    except OSError as error:
        return None, str(error)
    stack.callback(gpu.close)
    return gpu, ""
