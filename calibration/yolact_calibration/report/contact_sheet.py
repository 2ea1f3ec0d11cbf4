"""Pictures of the instances that two models find in the same image, side by side and small enough for a page.

The images are those whose masks differ most. The same object has the same colour on both sides.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import UsageError
from yolact_calibration.evaluation.agreement import ImageAgreement
from yolact_calibration.evaluation.pairing import find_partners
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.images import encode_image
from yolact_runtime.media.overlay import draw_instances
from yolact_runtime.option_numbers import MAX_COUNT, check_between, check_most, keep_numbers, shown_number

__all__ = ["SheetOptions", "draw_sheet", "side_by_side", "worst_images"]

Frame = npt.NDArray[np.uint8]
Int = npt.NDArray[np.int64]

_QUALITIES = (85, 70, 50, 30)
"""JPEG qualities to try, from one with clean letters to one that still shows shapes."""


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Limits on the number and size of pictures.

    Attributes:
        num_images: Maximum number of images.
        longest_px: Longest side of a picture in pixels; smaller frames keep their size.
        max_picture_bytes: Maximum size of a picture, which is compressed further until it fits or the lowest quality is
            reached.
        min_confidence: Reference instances above it are drawn, with the candidate's match at any confidence.
        is_truth: Whether the reference is labels, which are drawn without a confidence.

    Raises:
        UsageError: A field is not a number of its kind, or is out of its range; the message names it.
    """

    num_images: int = 8
    longest_px: int = 480
    max_picture_bytes: int = 40_000
    min_confidence: float = 0.3
    is_truth: bool = False

    def __post_init__(self) -> None:
        counts = ("num_images", "longest_px", "max_picture_bytes")
        keep_numbers(self, counts, ("min_confidence",))
        for name in counts:
            check_most(name, getattr(self, name), MAX_COUNT)
        check_between("min_confidence", self.min_confidence, 0, 1)
        if self.num_images < 0 or self.longest_px < 1 or self.max_picture_bytes < 1:
            found = ", ".join(f"{name} {shown_number(getattr(self, name))}" for name in counts)
            raise UsageError(f"a contact sheet needs images of some size, found {found}")


def worst_images(images: Iterable[ImageAgreement], num_images: int) -> list[ImageAgreement]:
    """Return the images that lost most, the worst first, without those that agree perfectly."""
    changed = [image for image in images if image.loss > 0]
    return sorted(changed, key=lambda image: (-image.loss, image.name))[:num_images]


def draw_sheet(
    images: Iterable[ImageAgreement],
    read_frame: Callable[[str], Frame],
    reference: Mapping[str, Instances],
    candidate: Mapping[str, Instances],
    class_names: Sequence[str],
    options: SheetOptions = SheetOptions(),
) -> list[dict[str, Any]]:
    """Draw the entry ``"worst_images"`` of a precision report.

    Args:
        images: Agreement of each image.
        read_frame: Function from the name of an image to its ``(H, W, 3)`` pixels in BGR order.
        reference: Instances that the reference model found, by name of the image.
        candidate: Instances that the candidate model found, by name of the image.
        class_names: Class names of both models, by class id.
        options: Limits on the number and size of pictures.

    Returns:
        JSON objects: the fields of :class:`ImageAgreement`, and the two pictures as ``"reference"`` and
        ``"candidate"``.
    """
    entries = []
    for image in worst_images(images, options.num_images):
        sides = reference[image.name], candidate[image.name]
        pictures = side_by_side(read_frame(image.name), *sides, class_names, options)
        entries.append({**dataclasses.asdict(image), "reference": pictures[0], "candidate": pictures[1]})
    return entries


def side_by_side(
    frame: Frame,
    reference: Instances,
    candidate: Instances,
    class_names: Sequence[str],
    options: SheetOptions = SheetOptions(),
) -> tuple[str, str]:
    """Draw the instances that each model found.

    Args:
        frame: Frame of any kind that a segmenter takes; not modified.
        reference: All instances that the reference model found.
        candidate: All instances that the candidate model found.
        class_names: Class names of both models, by class id.
        options: Limits on the number and size of pictures.

    Returns:
        Addresses (``data:``) of two JPEG pictures of the same size: reference, candidate.
    """
    scale = min(1.0, options.longest_px / max(frame.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    small = _shrink(as_bgr(frame), height, width)
    shown = _same_order(reference, candidate, options.min_confidence)
    drawn = [
        draw_instances(small, _shrink_instances(side, height, width), class_names, scores=has_scores)
        for side, has_scores in zip(shown, (not options.is_truth, True), strict=True)
    ]
    first, second = (_data_address(picture, options.max_picture_bytes) for picture in drawn)
    return first, second


def _same_order(reference: Instances, candidate: Instances, min_confidence: float) -> tuple[Instances, Instances]:
    """Return the instances to draw, matched pairs first and in the same order: the index determines the colour."""
    truth = reference[reference.confidence > min_confidence]
    partner = _partners(truth, candidate)
    found = partner >= 0
    extra = (candidate.confidence > min_confidence) & ~np.isin(np.arange(len(candidate)), partner)
    truth = truth[np.concatenate([np.flatnonzero(found), np.flatnonzero(~found)])]
    return truth, candidate[np.concatenate([partner[found], np.flatnonzero(extra)])]


def _partners(truth: Instances, candidate: Instances) -> Int:
    """Return the index of the candidate's match for each true instance, or -1; see ``pair_instances``."""
    order = np.argsort(-candidate.confidence, kind="stable")
    of_candidate, _ = find_partners(truth, candidate[order])
    partner = np.full(len(truth), -1, np.int64)
    partner[of_candidate[of_candidate >= 0]] = order[of_candidate >= 0]
    return partner


def _shrink(frame: Frame, height: int, width: int) -> Frame:
    """Return the frame in a smaller size, each pixel the mean of those that it replaces."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame)
    starts = [np.arange(small) * large // small for small, large in zip((height, width), frame.shape[:2], strict=True)]
    total = np.add.reduceat(np.add.reduceat(frame, starts[0], axis=0, dtype=np.float32), starts[1], axis=1)
    counts = [np.diff(start, append=large) for start, large in zip(starts, frame.shape[:2], strict=True)]
    mean = total / (counts[0][:, None] * counts[1]).astype(np.float32)[..., None]
    small: Frame = (mean + np.float32(0.5)).astype(np.uint8)
    return small


def _shrink_instances(instances: Instances, height: int, width: int) -> Instances:
    """Return the instances of the smaller frame; each mask is sampled at the centres of its pixels."""
    rows = ((np.arange(height) + 0.5) * instances.height / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * instances.width / width).astype(np.int64)
    small = np.zeros((len(instances), height, width), bool)
    for i, mask in enumerate(small):
        # One at a time: all masks of a large frame together may not fit in memory.
        left, top, inside = instances.mask.window(i)
        down = np.flatnonzero((rows >= top) & (rows < top + inside.shape[0]))
        across = np.flatnonzero((columns >= left) & (columns < left + inside.shape[1]))
        mask[np.ix_(down, across)] = inside[np.ix_(rows[down] - top, columns[across] - left)]
    scale = np.array([width / instances.width, height / instances.height] * 2, np.float32)
    return dataclasses.replace(instances, xyxy=instances.xyxy * scale, mask=Masks.from_dense(small))


def _data_address(picture: Frame, max_bytes: int) -> str:
    content = b""
    for quality in _QUALITIES:
        content = encode_image(picture, ".jpg", jpeg_quality=quality)
        if len(content) <= max_bytes:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
