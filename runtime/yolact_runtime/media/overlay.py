"""Pictures of results: masks, outlines, boxes and labels over a frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.colours import instance_colour
from yolact_runtime.media.label_layout import LabelLayout
from yolact_runtime.media.lettering import text_coverage, text_size

__all__ = ["draw_instances", "instance_colour"]

Frame = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
_MASK_OPACITY = 0.45
_LEAST_LETTER_PX, _MOST_LETTER_PX = 8, 48
_LABEL_SHARE = 0.08
"""Maximum share of the picture for all labels together, beyond which letters become smaller."""
_LEAST_SHRINK = 0.45


@dataclasses.dataclass(frozen=True)
class _Label:
    text: str
    letter_px: int

    @property
    def pad(self) -> int:
        return max(2, self.letter_px // 4)

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and columns of the tag."""
        rows, columns = text_size(self.text, self.letter_px)
        return rows + 2 * self.pad, columns + 2 * self.pad


def draw_instances(
    frame: Frame,
    instances: Instances,
    class_names: Sequence[str],
    *,
    labels: bool = True,
    boxes: bool = True,
    masks: bool = True,
    scores: bool = True,
    colours: npt.NDArray[np.float32] | None = None,
) -> Frame:
    """Draw instances, the best on top.

    A label is placed at the best free position beside or inside its box: inside the picture, on no other label, hiding
    no small object. In a crowd letters become smaller; if no position is left, the confidence is omitted, then the
    label. The font is limited to ASCII; see :func:`yolact_runtime.media.lettering.in_ascii`.

    Args:
        frame: Image ``(H, W, 3)`` uint8, blue first; not modified.
        instances: Instances of this frame.
        class_names: Names of the classes, by class id.
        labels: Whether to write the name of each instance.
        boxes: Whether to draw the boxes.
        masks: Whether to tint and outline the masks.
        scores: Whether labels have the confidence beside the name.
        colours: Colours ``(n, 3)`` float32, blue, green, red in 0..255, one for each instance; None colours them by
            rank. :func:`~yolact_runtime.media.colours.class_colours` colours them by class, and
            :class:`~yolact_runtime.media.colours.InstanceColours` keeps colours in a video.

    Returns:
        A new image of the same size.

    Raises:
        ShapeError: The number of colours is not the number of instances.
    """
    if colours is None:
        colours = np.array([instance_colour(i) for i in range(len(instances))], np.float32).reshape(-1, 3)
    if colours.shape != (len(instances), 3):
        raise ShapeError(f"{len(instances)} instances need colours of shape ({len(instances)}, 3), not {colours.shape}")
    image = frame.copy()
    line = max(1, round(min(frame.shape[:2]) / 350))
    covered = np.zeros(frame.shape[:2], bool)
    for i in reversed(range(len(instances)) if masks or labels else ()):
        left, top, inside = instances.mask.window(i)
        covered[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
        if masks:
            _paint_mask(image, left, top, inside, colours[i], line)
    # The limit is beyond any picture; a box of infinite size would not fit into an integer.
    limits = np.trunc(np.clip(instances.xyxy, -1e6, 1e6)).astype(np.int64)
    limits = np.clip(limits, 0, [frame.shape[1], frame.shape[0]] * 2)
    for i in reversed(range(len(instances)) if boxes else ()):
        _draw_frame(image, limits[i], colours[i], line)
    if labels and len(instances):
        _draw_labels(image, _label_texts(instances, class_names, scores), LabelLayout(limits, covered), colours)
    return image


def _paint_mask(image: Frame, left: int, top: int, inside: npt.NDArray[np.bool_], colour: Colour, line: int) -> None:
    """Tint the pixels of a mask, and darken, then colour, its rim, so that it stands out from any background."""
    view = image[top : top + inside.shape[0], left : left + inside.shape[1]]
    tinted = view[inside].astype(np.float32) * (1 - _MASK_OPACITY) + colour * _MASK_OPACITY
    view[inside] = tinted.astype(np.uint8)
    core = _erode(inside, line)
    view[inside & ~core] = colour.astype(np.uint8)
    view[core & ~_erode(core, 1)] = (colour * 0.35).astype(np.uint8)


def _erode(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_frame(image: Frame, box: Int, colour: Colour, line: int) -> None:
    left, top, right, bottom = box.tolist()
    value = colour.astype(np.uint8)
    image[top : min(top + line, bottom), left:right] = value
    image[max(bottom - line, top) : bottom, left:right] = value
    image[top:bottom, left : min(left + line, right)] = value
    image[top:bottom, max(right - line, left) : right] = value


def _label_texts(instances: Instances, class_names: Sequence[str], with_scores: bool) -> list[tuple[str, str]]:
    """Return the full and the short text of each label."""
    names = [class_names[class_id] for class_id in instances.class_id.tolist()]
    if not with_scores:
        return [(name, name) for name in names]
    return [(f"{name} {score:.2f}", name) for name, score in zip(names, instances.confidence.tolist(), strict=True)]


def _draw_labels(image: Frame, labels: Sequence[tuple[str, str]], layout: LabelLayout, colours: Colour) -> None:
    """Draw the labels, best instance first."""
    letter = _letter_px(image, [full for full, _ in labels])
    small = max(_LEAST_LETTER_PX, round(letter * 0.7))
    for i, (full, name) in enumerate(labels):
        for label in dict.fromkeys((_Label(full, letter), _Label(full, small), _Label(name, small))):
            place = layout.place(i, *label.size)
            if place is not None:
                _draw_label(image, label, place, colours[i])
                break


def _letter_px(image: Frame, texts: Sequence[str]) -> int:
    """Return the letter height: depends on the size of the picture, and is smaller if there are many labels."""
    letter = float(np.clip(min(image.shape[:2]) / 40, _LEAST_LETTER_PX, _MOST_LETTER_PX))
    needed = sum(math.prod(_Label(text, int(letter)).size) for text in texts)
    room = _LABEL_SHARE * image.shape[0] * image.shape[1]
    shrink = min(1.0, max(_LEAST_SHRINK, math.sqrt(room / needed)))
    return max(_LEAST_LETTER_PX, int(letter * shrink))


def _draw_label(image: Frame, label: _Label, place: tuple[int, int], colour: Colour) -> None:
    """Draw a filled tag with contrasting text."""
    (left, top), (rows, columns) = place, label.size
    letters = text_coverage(label.text, label.letter_px)[:, :, None]
    # Black or white, whichever has the higher contrast (WCAG 2): never below 4.5.
    luminance = (colour / 255) ** 2.2 @ np.array([0.0722, 0.7152, 0.2126], np.float32)
    ink = 0.0 if luminance > 0.18 else 255.0
    tag = image[top : top + rows, left : left + columns]
    tag[:] = colour.astype(np.uint8)
    inner = tag[label.pad : -label.pad, label.pad : -label.pad]
    inner[:] = (colour * (1 - letters) + np.float32(ink) * letters).astype(np.uint8)
