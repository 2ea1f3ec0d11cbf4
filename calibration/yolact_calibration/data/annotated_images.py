"""Image files and their labels, for evaluation and training. Does not need PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from yolact_calibration.data.image_check import check_images
from yolact_calibration.data.image_files import locate_images
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage
from yolact_calibration.labels.doubts import Doubts, find_doubts
from yolact_calibration.labels.fields import Id
from yolact_calibration.labels.options import FileRules
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["AnnotatedImages"]


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """A folder of images and their annotations; class ``c`` is the annotations' category ``c``.

    Attributes:
        annotations: Annotations of the images whose files exist.
        folder: Folder of the images.
        paths: Path of each file by image id; may contain more images than `annotations` after a selection.
        findings: Sentences about images that were left out.
        reader: Reader that decodes these images.
    """

    annotations: CocoAnnotations
    folder: Path
    paths: Mapping[Id, Path]
    findings: tuple[str, ...] = ()
    reader: ImageReader = dataclasses.field(default_factory=ImageReader)

    @classmethod
    def open(
        cls,
        annotations: CocoAnnotations,
        folder: Path,
        rules: FileRules | None = None,
        reader: ImageReader | None = None,
    ) -> AnnotatedImages:
        """Find the files of all images.

        Args:
            annotations: Annotations that name the files.
            folder: Folder that the names are relative to.
            rules: Rules for files that are missing or outside of the folder; None refuses both.
            reader: Reader that decodes the images; None creates one with default settings.

        Raises:
            DatasetError: A file is missing, or outside of the folder, and the rules do not allow it.
        """
        found, paths, findings = locate_images(annotations, folder, rules or FileRules())
        return cls(found, folder, paths, findings, reader or ImageReader())

    @property
    def all_findings(self) -> tuple[str, ...]:
        """Sentences about everything that was left out, each with the annotation file's name."""
        return tuple(f"{self.annotations.source}: {one}" for one in (*self.annotations.findings, *self.findings))

    def warn_of_doubts(self, reporter: Reporter) -> Doubts:
        """Report left-out items and doubtful labels as warnings, with counts, and return the doubts."""
        doubts = find_doubts(self.annotations)
        for sentence in (*self.all_findings, *(f"{self.annotations.source}: {one}" for one in doubts.findings())):
            reporter.warn(sentence)
        return doubts

    def path(self, image: CocoImage) -> Path:
        """Return the file of an image."""
        return self.paths[image.image_id]

    def check(self, reporter: Reporter = SILENT) -> str:
        """Decode every image, and compare its size with its annotations; see :func:`check_images`.

        Args:
            reporter: Reporter that shows the progress.

        Returns:
            The SHA-256 of the annotations and of every image file that they name, hexadecimal.

        Raises:
            DatasetError: Images cannot be read, or have another size.
        """
        files = [(image, self.path(image)) for image in self.annotations.images]
        return check_images(files, self.annotations.source, self.annotations.sha256, self.reader, reporter)
