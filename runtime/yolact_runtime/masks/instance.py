"""One object found in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_plugins.plain_text import printable_line, shortened
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.mask import Mask

__all__ = ["Instance", "class_label", "name_of_class"]

_MAX_SHOWN = 40


@dataclass(frozen=True, eq=False, repr=False)
class Instance:
    """One object found in a frame: what ``instances[i]`` and iteration over :class:`yolact_runtime.Instances` give.

    Arrays are views of those of the instances. An instance is equal to itself only; compare its fields.

    Attributes:
        xyxy: Box ``(4,)`` float32, (left, top, right, bottom) in pixels of the frame, as the network gives it. The mask
            may reach beyond it by the width of the network's mask pixels; ``mask.bounds()`` is the box of the mask.
        mask: Mask of the object.
        confidence: Softmax score of the class, 0 to 1.
        class_id: Class, counted from 0 without the background.
        class_name: Name of the class; None if the instances have no names.
        mask_confidence: Confidence times the predicted IoU of the mask; None for models other than YOLACT++.
    """

    xyxy: npt.NDArray[np.float32]
    mask: Mask
    confidence: float
    class_id: int
    class_name: str | None = None
    mask_confidence: float | None = None

    def __repr__(self) -> str:
        label, box = class_label(self.class_id, self.class_name), ", ".join(f"{side:.0f}" for side in self.xyxy)
        return f"<Instance: {label} {self.confidence:.2f}, box ({box}), {self.mask.area()} pixels>"


def name_of_class(class_names: tuple[str, ...] | None, class_id: int) -> str | None:
    """Return the name of a class; None if there are no names.

    Raises:
        ShapeError: There are names, and none for this class.
    """
    if class_names is None:
        return None
    if not 0 <= class_id < len(class_names):
        raise ShapeError(f"class_id {class_id} has no name: there are {len(class_names)} class_names")
    return class_names[class_id]


def class_label(class_id: int, class_name: str | None) -> str:
    """Return the short name of a class, safe to print on a terminal, or its number."""
    return f"class {class_id}" if class_name is None else printable_line(shortened(class_name, _MAX_SHOWN))
