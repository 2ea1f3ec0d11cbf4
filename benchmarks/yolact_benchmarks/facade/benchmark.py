"""Speed of a model from a frame in memory to its instances, measured while the machine is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from yolact_benchmarks.facade.bench_session import run_bench
from yolact_benchmarks.facade.input_checks import as_words, check_image_folder, check_precisions
from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.request import SYNTHETIC, BenchmarkOptions, BenchRequest
from yolact_benchmarks.report.document import envelope
from yolact_calibration.report.provenance import file_entry
from yolact_runtime.commands.signature_options import require_consistent_trust
from yolact_runtime.errors import UsageError
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["Benchmark", "benchmark", "check_request", "run_benchmark"]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Result of :func:`benchmark`.

    Attributes:
        record: The JSON object that ``yolact-bench --json`` writes, with every sample.
    """

    record: Mapping[str, Any]
    _pictures: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)

    @property
    def cases(self) -> list[dict[str, Any]]:
        """Measured configurations: network, frames, number of instances, and their figures in milliseconds."""
        cases: list[dict[str, Any]] = self.record["results"]["cases"]
        return cases

    @property
    def is_stable(self) -> bool:
        """Whether all configurations could be measured without disturbance."""
        return all(case["verdict"]["stable"] for case in self.cases)

    def markdown(self) -> str:
        """Return the tables that ``yolact-bench --markdown`` writes."""
        from yolact_benchmarks.report.tables import bench_tables, render_markdown

        return render_markdown(bench_tables(self.record["results"]))

    def html(self) -> str:
        """Return the self-contained page that ``yolact-bench --html`` writes."""
        from yolact_benchmarks.report.report import draw_bench_report

        return draw_bench_report(self.record, self._pictures)


def benchmark(
    model: Path | str,
    images: Sequence[Path | str] | Path | str = SYNTHETIC,
    *,
    instances: Sequence[int | None] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    precisions: Sequence[str] | str = (),
    backend: str = "auto",
    annotations: Path | str | None = None,
    against: Path | str | None = None,
    plan: Plan | None = None,
    options: BenchmarkOptions | None = None,
    reporter: Reporter = SILENT,
) -> Benchmark:
    """Measure the time from a frame in memory to its instances, by stages and for several networks.

    Args:
        model: Folder of a bundle, or one of its ``.onnx`` or ``.plan`` files.
        images: Folders, files or globs of pictures; ``"camera"``; or ``"synthetic"``, which draws scenes.
        instances: Numbers of instances that every frame has; None stands for what the network finds.
            By default 1, 10 and 100 in drawn scenes, and what the network finds in pictures.
        sizes: Widths and heights of drawn scenes, pixels; None takes 1280 x 720 and 1920 x 1080.
        precisions: Network or networks of a bundle, such as ``["fp32", "int8-cpu"]``; ``"all"`` takes all that the
            backend runs well, and an empty sequence the one that it runs best.
        backend: Name of a backend, or ``"auto"``.
        annotations: File of labels in COCO's format, to measure average precision too; needs a folder of pictures.
        against: Model to measure agreement with instead.
        plan: Durations; None measures each configuration for 10 seconds.
        options: Further settings.
        reporter: Receives warnings and progress.

    Returns:
        The record, with every sample.

    Raises:
        UsageError: Arguments contradict each other, or the model.
        DatasetError: Labels or images cannot be used.
        MediaError: A picture cannot be read.
        BackendError: The model does not run here.
        BundleError: A model does not exist or is damaged.
        SignatureError: A model is not signed by one of the keys.
        MissingDependencyError: A package that the backend, the pictures or the labels need is not installed.

    Examples:
        >>> result = benchmark("mine.bundle", plan=Plan(until_ci=0.01))  # doctest: +SKIP
        >>> result.cases[0]["latency"]["percentiles_ms"]["p50"]  # doctest: +SKIP
        12.62
    """
    words = as_words(images)
    options = options or BenchmarkOptions()
    drawn = words == (SYNTHETIC,)
    if sizes is not None and not drawn:
        raise UsageError("sizes are those of drawn frames; pictures have their own: leave out sizes or images")
    default_sizes = ((1280, 720), (1920, 1080)) if drawn else ()
    default_instances = (1, 10, 100) if drawn else (None,)
    request = BenchRequest(
        Path(model),
        words,
        default_instances if instances is None else _as_tuple("instances", instances, "[10]"),
        default_sizes if sizes is None else _as_sizes(sizes),
        plan or Plan(),
        as_words(precisions),
        backend,
        None if annotations is None else Path(annotations),
        None if against is None else Path(against),
        **{item.name: getattr(options, item.name) for item in fields(BenchmarkOptions)},
    )
    check_request(request)
    return run_benchmark(request, "yolact_benchmarks.benchmark()", (), reporter)


def _as_tuple(name: str, values: Any, example: str) -> tuple[Any, ...]:
    """Return the items of a sequence, and refuse one item in place of it."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise UsageError(f"{name} must be a list, such as {example}; found {values!r}")
    return tuple(values)


def _as_sizes(sizes: Any) -> tuple[tuple[int, int], ...]:
    example = "[(1280, 720)]"
    return tuple(_as_tuple("sizes", size, example) for size in _as_tuple("sizes", sizes, example))


def check_request(request: BenchRequest) -> None:
    """Refuse mistakes that a benchmark would otherwise find only after measuring the speed.

    Raises:
        UsageError: Two settings contradict each other, or a file does not exist.
        NoNetworkError: The bundle has no network of such a precision.
    """
    _ = request.options
    require_consistent_trust(request.model, request.verify_keys, request.trust_engine)
    check_precisions(request.model, [name for name in request.precisions if name != "all"])
    if request.checkpoint and not request.with_peers:
        raise UsageError("only peers run a checkpoint: measure peers too, or leave the checkpoint out")
    if request.annotations is None and (request.rules.skip_missing or request.rules.allow_outside):
        raise UsageError("skip_missing and allow_outside have no effect without annotations")
    if (request.annotations or request.against) and request.is_live:
        raise UsageError("annotations, or a model to compare with, need pictures: name a folder of images")
    if request.annotations and request.against:
        raise UsageError("give either annotations or a model to compare with, not both")
    if request.annotations:
        check_image_folder(request.images)
    for name in ("annotations", "against", "checkpoint"):
        if (path := getattr(request, name)) is not None and not path.exists():
            raise UsageError(f"{name}: {path} does not exist")


def run_benchmark(
    request: BenchRequest, command: str, defaults: Sequence[str] = (), reporter: Reporter = SILENT
) -> Benchmark:
    """Measure what :func:`check_request` has accepted.

    Args:
        request: The models, frames and settings.
        command: The call or command line, for the record.
        defaults: Options that were not given, in the words of a command line, for the record.
        reporter: Receives warnings and progress.
    """
    results = run_bench(request, reporter)
    pictures = results.pop("pictures", None)
    settings = {**request.settings(), "defaults": list(defaults)}
    return Benchmark(envelope(command, settings, results, [file_entry("Model", request.model)]), pictures)
