"""What the runtime returns for a frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.masks import Masks

__all__ = ["Instances"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Instances:
    """The objects found in one frame, best first. The caller owns every array.

    Attributes:
        xyxy: ``(n, 4)`` float32, pixels of the frame, (left, top, right, bottom). As upstream, the left and top edges
            are clamped at 0 and the right and bottom edges at the frame's size, and nothing else: a box whose object
            lies outside the frame may start beyond it.
        mask: ``n`` masks, held compactly.
        confidence: ``(n,)`` float32, softmax score of the class.
        class_id: ``(n,)`` int32, 0-based; the background has no number.
        mask_confidence: ``(n,)`` float32, YOLACT++ only: confidence times the predicted IoU of the mask. The published
            evaluation ranks masks by it and boxes by ``confidence``.
    """

    xyxy: npt.NDArray[np.float32]
    mask: Masks
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    mask_confidence: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        lengths = [len(self.mask), len(self.confidence), len(self.class_id)]
        if self.mask_confidence is not None:
            lengths.append(len(self.mask_confidence))
        if self.xyxy.shape != (count, 4) or set(lengths) != {count}:
            raise ShapeError(
                f"instances disagree: boxes {self.xyxy.shape}; masks, confidences, classes (and mask confidences) "
                f"{lengths}"
            )

    def __repr__(self) -> str:
        return f"<Instances: {len(self)} in a frame of {self.width} x {self.height}>"

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: slice | npt.NDArray[np.generic] | list[int]) -> Instances:
        """The selected instances, in the given order; `index` is a slice, indices or a boolean array."""
        return Instances(
            self.xyxy[index],
            self.mask[index],
            self.confidence[index],
            self.class_id[index],
            None if self.mask_confidence is None else self.mask_confidence[index],
        )

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return self.mask.height

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return self.mask.width

    def as_dict(self) -> dict[str, npt.NDArray[np.generic]]:
        """``xyxy, mask, confidence, class_id`` with *dense* masks ``(n, H, W)`` bool.

        The names are those of supervision: ``sv.Detections(**instances.as_dict())``.
        """
        return {
            "xyxy": self.xyxy,
            "mask": self.mask.dense(),
            "confidence": self.confidence,
            "class_id": self.class_id,
        }
