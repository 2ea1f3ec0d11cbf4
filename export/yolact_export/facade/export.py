"""Export of a checkpoint as a verified bundle, with everything that ``yolact-export`` can add to it."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.labels.options import Labels
from yolact_calibration.precision.options import PrecisionOptions
from yolact_export.bundle_writer import check_destination
from yolact_export.engine.bundle import WrittenEngine
from yolact_export.engine.gpus import check_rtx
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.targets import available_targets, has_deform_conv, report_left_out
from yolact_export.errors import CheckpointError, UsageError
from yolact_export.facade.engines import as_engine_options, write_engines
from yolact_export.facade.packages import require_packages
from yolact_export.seal import BundleSeal, SigningOptions, open_new_seal
from yolact_export.training.pruning_options import PruningOptions
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.graph.export import ExportOptions
    from yolact_export.pipeline import AddNetworks, ExportResult
    from yolact_export.precision.precision import PrecisionResult

__all__ = ["as_words", "export", "make_adder", "memory_errors"]


def export(
    checkpoint: Path | str,
    bundle: Path | str | None = None,
    *,
    checkpoint_options: CheckpointOptions | None = None,
    export_options: ExportOptions | None = None,
    images: Sequence[Path | str] | Path | str = (),
    labels: Labels | None = None,
    precision: PrecisionOptions | None = None,
    pruning: PruningOptions | None = None,
    engines: EngineOptions | Sequence[EngineOptions] | None = None,
    require_engines: bool = True,
    signing: SigningOptions | None = None,
    num_threads: int | None = None,
    command: str = "yolact_export.export()",
    reporter: Reporter = SILENT,
) -> ExportResult:
    """Export a checkpoint as a bundle, verified against PyTorch.

    The bundle takes its place once it is complete; after an error nothing has changed.

    Args:
        checkpoint: The ``.pth`` file of a YOLACT, YOLACT++ or YolactEdge model.
        bundle: Folder to write; None is the name of the checkpoint with ``.bundle``, in the current folder.
        checkpoint_options: Facts that the file does not state, such as the configuration and the class names.
        export_options: Settings of the ONNX graph.
        images: Folders, globs and files of unlabelled images, for `precision` and `pruning`; needed by both.
        labels: Labelled images to judge `precision` or `pruning` by; None judges by agreement.
        precision: Networks in INT8 and float16 to add; None adds none.
        pruning: Settings of pruning before the export; None leaves it as it is.
        engines: TensorRT engines to build. None builds those that this machine can build, if there is `precision`, and
            an empty sequence none.
        require_engines: If False, leave out engines that cannot be built of this network, and report why.
        signing: Keys of the signature.
        num_threads: CPU threads for measuring latency; None is 1 for pruning and otherwise all.
        command: The call or command line that the report page shows.
        reporter: Receives progress and warnings.

    Returns:
        The bundle, its manifest, and the evidence; a network that lost too much accuracy is rejected, and the others
        stand, see :attr:`ExportResult.passed`.

    Raises:
        CheckpointError: The file cannot be read, is of another kind of model, or does not state enough.
        ConfigError: The configuration is unknown.
        ExportError: The model cannot be written as such a graph.
        VerificationError: The exported model does not compute what the checkpoint computes.
        UsageError: Options contradict each other.
        DatasetError: Images or labels cannot be used.
        CalibrationError: No ranges follow from the images.
        PruningError: The latency cannot be reached.
        EngineBuildError: TensorRT refuses a network; the bundle stands without its engine.
        SignatureError: A signed bundle would be replaced by an unsigned one, or the key is unusable.
        MissingDependencyError: A package of an extra is not installed.

    Examples:
        >>> result = export("best.pth", "mine.bundle")  # doctest: +SKIP
        >>> networks = PrecisionOptions(int8=True, target="cpu")  # doctest: +SKIP
        >>> result = export("best.pth", "mine.bundle", images="frames/", precision=networks)  # doctest: +SKIP
    """
    checkpoint, words = Path(checkpoint), as_words(images)
    chosen = None if engines is None else as_engine_options(engines)
    _check(checkpoint, words, labels, precision, pruning, chosen)
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.graph.export import ExportOptions
    from yolact_export.pipeline import export_checkpoint

    graph, signing = export_options or ExportOptions(), signing or SigningOptions()
    started = time.monotonic()
    folder = Path(f"{checkpoint.stem}.bundle") if bundle is None else Path(bundle)
    with memory_errors():
        check_destination(folder)
        seal = open_new_seal(signing, folder, reporter)
        adder = pruned = None
        # Before anything that takes long: images that cannot be used end an export at once.
        if precision is not None:
            adder = make_adder(precision, words, labels, graph.bit_depth, None, num_threads, command, reporter)
        if pruning is not None:
            from yolact_export.training.pruning_request import prune_first

            threads = 1 if num_threads is None else num_threads
            pruned = prune_first(
                checkpoint, folder, checkpoint_options, pruning, words, labels, graph, threads, command, reporter
            )
            # The pruned file states itself how it is fed; what the options said is in its note.
            checkpoint, checkpoint_options = pruned.path, CheckpointOptions()
        reporter.heading(f"reading {checkpoint}")
        record = {} if pruned is None else {"pruning": pruned.record}
        result = export_checkpoint(
            checkpoint, folder, checkpoint_options, graph, record, adder, seal.finish_new, reporter
        )
        for line in result.verification.table():
            reporter.say(f"  {line}")
    with seal.reported():
        if chosen is None and precision is not None and precision.target != "cpu":
            chosen, require_engines = tuple(map(EngineOptions, available_targets())), False
        written = _build(result.bundle, chosen or (), require_engines or precision is None, seal, reporter)
    return dataclasses.replace(result, pruned=pruned, engines=written, seconds=time.monotonic() - started)


def _check(
    checkpoint: Path,
    words: Sequence[str],
    labels: Labels | None,
    precision: PrecisionOptions | None,
    pruning: PruningOptions | None,
    engines: Sequence[EngineOptions] | None,
) -> None:
    """Refuse contradictory options before anything heavy is imported."""
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: No such file or directory; name a .pth checkpoint")
    if (precision is not None or pruning is not None) and not words:
        raise UsageError(
            "precision and pruning need images: a folder of images as the camera sees them, without labels. Ranges "
            "from other data would be wrong without any message"
        )
    if (words or labels) and precision is None and pruning is None:
        raise UsageError(
            f"{'images' if words else 'labels'} have no effect without precision or pruning; give PrecisionOptions or "
            f"PruningOptions, too"
        )
    for one in engines or ():
        if one.target == "rtx":
            check_rtx(one.compute_capabilities)
    require_packages("yolact-export", "export", "torch", "onnx", "onnxruntime")
    if precision is not None:
        require_packages("yolact-export --int8", "train", "faster_coco_eval", "cv2")
    if pruning is not None:
        require_packages("yolact-export --prune", "train", "torch_pruning", "faster_coco_eval", "cv2")


def _build(
    bundle: Path, options: Sequence[EngineOptions], required: bool, seal: BundleSeal, reporter: Reporter
) -> tuple[WrittenEngine, ...]:
    if not required:
        if not any(one.target == "rtx" for one in options):
            report_left_out((), reporter)
        elif has_deform_conv(bundle):
            reporter.say("no TensorRT-RTX engine: it has no DeformConv; set deform_conv to grid-sample")
            options = [one for one in options if one.target != "rtx"]
        if not options:
            words = f"yolact-export {shlex.quote(str(bundle))} --engine"
            reporter.say(f"no engine: this machine has no TensorRT that could build one. On the robot: {words}")
    return write_engines(bundle, options, None, seal, reporter)


def make_adder(
    options: PrecisionOptions,
    words: Sequence[str],
    labels: Labels | None,
    bit_depth: int | None,
    usual_bit_depth: int | None,
    num_threads: int | None,
    command: str,
    reporter: Reporter,
    earlier_rows: Callable[[PrecisionResult], Sequence[Mapping[str, Any]]] = lambda _: (),
) -> AddNetworks:
    """Find and check the images, and return the function that adds networks to a folder.

    Args:
        options: The networks.
        words: Folders, globs and files of unlabelled images.
        labels: Labelled images to judge by, or None.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what they state.
        usual_bit_depth: The same, for images that state nothing.
        num_threads: CPU threads; None takes all.
        command: The call or command line, for the report.
        reporter: Receives progress.
        earlier_rows: Function from the new networks to the rows of an earlier report on networks that stay.

    Raises:
        DatasetError: Images or labels cannot be used.
    """
    from yolact_calibration.precision.precision_request import ImageSource, precision_request
    from yolact_export.precision.network_adder import network_adder

    source = ImageSource(tuple(words), labels, bit_depth, usual_bit_depth, num_threads or 0)
    return network_adder(precision_request(options, source, reporter), command, earlier_rows, reporter)


def as_words(images: Sequence[Path | str] | Path | str) -> tuple[str, ...]:
    """Return one path or word, or several, as a tuple of words."""
    return (str(images),) if isinstance(images, Path | str) else tuple(map(str, images))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise torch's errors about memory, which has no class for them, as MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise
