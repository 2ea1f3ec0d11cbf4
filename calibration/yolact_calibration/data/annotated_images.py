"""Images on disk and their labels; to judge by and to train with. Needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.coco import CocoAnnotations, CocoImage

__all__ = ["AnnotatedImages"]


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """A folder of images and their annotations; class ``c`` is the annotations' category ``c``.

    Attributes:
        annotations: What is in the images.
        folder: Where the images are.
    """

    annotations: CocoAnnotations
    folder: Path

    def __post_init__(self) -> None:
        missing = [image.file_name for image in self.annotations.images if not self.path(image).is_file()]
        if missing:
            raise DatasetError(
                f"{len(missing)} of the {len(self.annotations)} images of {self.annotations.source} are not in "
                f"{self.folder}: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}. Is it the right folder?"
            )

    def path(self, image: CocoImage) -> Path:
        """File of an image."""
        return self.folder / image.file_name

    def digest(self) -> str:
        """SHA-256 of the annotations and of every image file that they name, hexadecimal."""
        total = hashlib.sha256(self.annotations.sha256.encode())
        for image in self.annotations.images:
            total.update(image.file_name.encode())
            total.update(self.path(image).read_bytes())
        return total.hexdigest()
