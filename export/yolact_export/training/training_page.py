"""Pages of trainings: the curve, predictions on held-back images, and where all of it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolact_calibration.report.provenance import file_entry, provenance
from yolact_calibration.report.training_curve import draw_curve
from yolact_calibration.training.training_state import Curve
from yolact_export.model.registry import CONFIGS
from yolact_plugins.files import counted, write_atomically

__all__ = ["finetune_files", "prune_files", "write_training_page"]


def write_training_page(
    path: Path,
    checkpoint: Path,
    curve: Curve,
    held_back: Mapping[str, Any] | None,
    command_line: str,
    files: Sequence[Mapping[str, str]],
) -> None:
    """Write the page of a training.

    Args:
        path: Path of the HTML file.
        checkpoint: Checkpoint that the training wrote.
        curve: Curve of the training.
        held_back: Comparison from :mod:`yolact_export.training.held_back`; None if no images were held back.
        command_line: The command as typed; empty if there was none.
        files: Entries from :func:`~yolact_calibration.report.provenance.file_entry`.

    Raises:
        OSError: The checkpoint cannot be read, or the page not be written.
    """
    made = provenance(command_line, [file_entry("Checkpoint", checkpoint), *files])
    page = draw_curve(curve, checkpoint.name, held_back, made)
    write_atomically(path, page.encode())


def finetune_files(source: str, backbone: Path | None, annotations: Path, data_sha256: str) -> list[dict[str, str]]:
    """Return what the page of a fine-tuning names: what it began with, and what it learned from.

    Args:
        source: Checkpoint, or name of a configuration.
        backbone: File of ImageNet weights.
        annotations: Annotation file.
        data_sha256: Digest of images and labels.

    Raises:
        OSError: A file cannot be read.
    """
    if source in CONFIGS:
        files = [{"role": "Trained from", "name": f"configuration {source}"}]
    else:
        files = [file_entry("Trained from", Path(source))]
    if backbone is not None:
        files.append(file_entry("Backbone", backbone))
    return [*files, file_entry("Images and labels", annotations, data_sha256)]


def prune_files(source: Path | None, source_sha256: str, num_images: int, images_sha256: str) -> list[dict[str, str]]:
    """Return what the page of a pruning names: the dense checkpoint, and the images it recovered with.

    Args:
        source: The dense checkpoint; None if only its digest is known.
        source_sha256: Digest of the dense checkpoint.
        num_images: Number of images.
        images_sha256: Digest of the images.
    """
    dense = "a checkpoint" if source is None else source.name
    return [
        {"role": "Pruned from", "name": dense, "sha256": source_sha256},
        {"role": "Images", "name": counted(num_images, "image"), "sha256": images_sha256},
    ]
