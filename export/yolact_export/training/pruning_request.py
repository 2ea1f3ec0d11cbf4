"""Pruning of a checkpoint from options: images found, request made, recovery planned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.image_sequence import find_unlabelled
from yolact_calibration.errors import UsageError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.options import Labels
from yolact_calibration.pruning.channel_groups import BLOCKS, WidthGrid
from yolact_calibration.pruning.prune import PruneOptions
from yolact_calibration.training.torch_device import choose_device, has_fast_bfloat16, has_safe_bfloat16
from yolact_calibration.training.training_options import TrainingOptions
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.findings import say_findings
from yolact_export.graph.export import ExportOptions
from yolact_export.training.pruning import PrunedCheckpoint, PruneRequest, prune_checkpoint
from yolact_export.training.pruning_options import PruningOptions
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["prune_first"]

# Fewer say nothing about which channels matter.
_LEAST_IMAGES = 16


def prune_first(
    checkpoint: Path,
    bundle: Path,
    checkpoint_options: CheckpointOptions | None,
    options: PruningOptions,
    words: Sequence[str],
    labels: Labels | None = None,
    export_options: ExportOptions | None = None,
    num_threads: int = 1,
    command: str = "",
    reporter: Reporter = SILENT,
) -> PrunedCheckpoint:
    """Prune a checkpoint; the result is a file beside the bundle, to be exported in its place.

    Args:
        checkpoint: The ``.pth`` file.
        bundle: The folder that will be exported to; it gives the pruned file its name.
        checkpoint_options: Facts that the file does not state.
        options: The share to remove, and the training of the rest.
        words: Folders, globs and files of unlabelled images.
        labels: Labelled images to measure accuracy on; None measures agreement with the unpruned model.
        export_options: Settings of the graph that will be written, which must have an effect on this model; the bit
            depth of the images is among them.
        num_threads: CPU threads that latency is measured with.
        command: The call or command line, for the page.
        reporter: Receives progress.

    Raises:
        PruningError: The latency cannot be reached, or nothing can be removed.
        DatasetError: Images or labels cannot be used.
        UsageError: Labels to learn from are given with several folders, or an export option has no effect.
    """
    if options.recover_annotations is not None and len(words) != 1:
        raise UsageError("recover_annotations are the labels of one folder of images; several were given")
    loaded = load_checkpoint(checkpoint, checkpoint_options)
    # Before the pruning, which takes long, and not after it.
    (export_options or ExportOptions()).require_effects(loaded.model)
    # What the pruned checkpoint says of itself is what is known of this one, assumptions included.
    say_findings(loaded.findings, reporter)
    device = choose_device("auto")
    reader = ImageReader(None if export_options is None else export_options.bit_depth, None, reporter.warn)
    images = find_unlabelled(words, _LEAST_IMAGES, reader)
    for sentence in images.warnings:
        reporter.warn(sentence)
    # Pyramid, prototype network and head have no batch norms.
    blocks = ("backbone",) if options.importance == "batch-norm" else BLOCKS
    grid = WidthGrid(round_to=options.round_to)
    learned = None
    if options.recover_annotations is not None:
        learned = Labels(options.recover_annotations, words[0], options.rules)
    request = PruneRequest(
        output=bundle.with_name(f"{bundle.stem}.pruned.pth"),
        options=PruneOptions(options.removed_latency, options.importance, grid, blocks, seed=options.seed),
        images=images,
        labelled=_annotated(learned, reader, reporter),
        evaluation=_annotated(labels, reader, reporter),
        recovery=_recovery(options, device, loaded.config.feature_sizes[-1]),
        augment=AugmentOptions(expand=1.5) if options.augments else AugmentOptions.none(),
        num_threads=num_threads,
        num_workers=options.num_workers,
        device=device,
        restart=options.restart,
        source=checkpoint,
        command_line=command,
    )
    reporter.heading(f"pruning: {options.removed_latency:.0%} of the latency, with {len(request.images)} images")
    try:
        return prune_checkpoint(loaded, request, reporter)
    except BaseException:
        if request.files.state.exists():
            reporter.say(f"state kept in {request.files.state}; the same command continues")
        raise


def _recovery(options: PruningOptions, device: str, coarsest_size: tuple[int, int]) -> TrainingOptions | None:
    num_steps = options.recover_steps
    if num_steps == 0:
        return None
    return TrainingOptions(
        num_steps=num_steps,
        batch_size=options.recover_batch,
        learning_rate=options.recover_rate,
        optimizer="adamw",
        warmup_steps=min(100, max(1, num_steps // 10)),
        freeze_batch_norm=options.recover_batch < 6,
        autocast=has_fast_bfloat16(device) and has_safe_bfloat16(device, coarsest_size),
        seed=options.seed,
        save_every=100,
        evaluate_every=max(num_steps // 5, 1),
    )


def _annotated(labels: Labels | None, reader: ImageReader, reporter: Reporter) -> AnnotatedImages | None:
    if labels is None:
        return None
    annotations = CocoAnnotations.from_file(Path(labels.annotations))
    data = AnnotatedImages.open(annotations, Path(labels.images), labels.rules, reader)
    data.warn_of_doubts(reporter)
    return data
