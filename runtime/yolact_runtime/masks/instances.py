"""The objects found in a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.instance import Instance, class_label, name_of_class
from yolact_runtime.masks.masks import Masks
from yolact_runtime.masks.selection import resolve_index

if TYPE_CHECKING:
    import supervision

__all__ = ["Instances", "InstancesDict"]

_NUM_SHOWN = 3


class InstancesDict(TypedDict):
    """Type of :meth:`Instances.as_dict`: the four arrays that ``supervision.Detections`` takes by these names.

    Attributes:
        xyxy: Boxes in pixels of the frame, ``(n, 4)`` float32.
        mask: Dense masks, ``(n, height, width)`` bool.
        confidence: Scores of the classes, ``(n,)`` float32.
        class_id: Classes, counted from 0, ``(n,)`` int32.
    """

    xyxy: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Instances:
    """The objects found in one frame, best first: what a segmenter returns. The caller owns every array.

    A sequence: ``len(instances)``, iteration and ``instances[0]`` give an :class:`yolact_runtime.Instance`; slices,
    lists of indices and boolean arrays give ``Instances``. They are equal to themselves only; compare their arrays.

    Example:
        ```python
        for instance in instances:
            print(instance.class_name, instance.confidence, instance.mask.area())
        people = instances[instances.class_id == instances.class_names.index("person")]
        ```

    Attributes:
        xyxy: Boxes ``(n, 4)`` float32, (left, top, right, bottom) in pixels of the frame. As in the original, the left
            and top edges are clamped at 0 and the right and bottom edges at the frame's size, and nothing else: a box
            whose object lies outside the frame may start beyond it.
        mask: ``n`` masks, held compactly.
        confidence: Softmax scores of the classes, 0 to 1, ``(n,)`` float32.
        class_id: Classes ``(n,)`` int32, counted from 0 without the background. They are no COCO category ids.
        mask_confidence: Confidence times the predicted IoU of the mask, ``(n,)`` float32; None for models other than
            YOLACT++. The published evaluation ranks masks by it and boxes by ``confidence``.
        class_names: Names of all classes, indexed by ``class_id``: the tuple of the model's manifest. None in instances
            that were made without a model.

    Raises:
        ShapeError: An array has another shape, or another length than the masks.
    """

    xyxy: npt.NDArray[np.float32]
    mask: Masks
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    mask_confidence: npt.NDArray[np.float32] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.mask)
        expected = {"xyxy": (count, 4), "confidence": (count,), "class_id": (count,)}
        if self.mask_confidence is not None:
            expected["mask_confidence"] = (count,)
        found = {name: np.shape(getattr(self, name)) for name in expected}
        if found != expected:
            raise ShapeError(f"instances disagree: {count} masks have arrays of the shapes {expected}, found {found}")

    def __repr__(self) -> str:
        shown = zip(self.class_id[:_NUM_SHOWN].tolist(), self.confidence[:_NUM_SHOWN].tolist(), strict=True)
        labels = [f"{class_label(class_id, self._name_or_none(class_id))} {score:.2f}" for class_id, score in shown]
        labels += ["…"] if len(self) > _NUM_SHOWN else []
        found = f": {', '.join(labels)}" if labels else ""
        return f"<Instances: {len(self)} in a frame of {self.width} x {self.height}{found}>"

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Instance]:
        # As by index, with one conversion of each array.
        count, names = len(self), self.class_names
        rescored = [None] * count if self.mask_confidence is None else self.mask_confidence.tolist()
        scores, classes = self.confidence.tolist(), self.class_id.tolist()
        for xyxy, mask, score, class_id, mask_score in zip(
            self.xyxy, self.mask, scores, classes, rescored, strict=True
        ):
            yield Instance(xyxy, mask, score, class_id, name_of_class(names, class_id), mask_score)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Instance: ...

    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.generic] | Sequence[int]) -> Instances: ...

    def __getitem__(self, index: object) -> Instance | Instances:
        """Return one instance, or the selected instances in the given order.

        Args:
            index: An integer gives an :class:`Instance`. A slice, a list or array of integers, or ``(n,)`` booleans
                give ``Instances``. Negative integers count from the end. Arrays are views for integers and slices, and
                copies otherwise; masks are views for integers only.

        Raises:
            IndexError: There is no such instance, or a boolean array has another length.
            TypeError: The index is of another kind.
            ShapeError: ``class_names`` has no name for the class of the instance.
        """
        found = resolve_index(index, len(self))
        if isinstance(found, int):
            return self._one(found)
        return Instances(
            self.xyxy[found],
            self.mask[found],
            self.confidence[found],
            self.class_id[found],
            None if self.mask_confidence is None else self.mask_confidence[found],
            self.class_names,
        )

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return self.mask.height

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return self.mask.width

    def as_dict(self) -> InstancesDict:
        """Return boxes, *dense* masks, confidences and classes under the names that supervision uses.

        ``sv.Detections(**instances.as_dict())`` is exact and type-checks. Masks take ``n * height * width`` bytes;
        :meth:`to_supervision` keeps them compact, and adds the class names. The other arrays are those of the
        instances, not copies.
        """
        return {
            "xyxy": self.xyxy,
            "mask": self.mask.dense(),
            "confidence": self.confidence,
            "class_id": self.class_id,
        }

    def to_supervision(self) -> supervision.Detections:
        """Return the instances as detections of the package supervision, with compact masks.

        supervision cuts a compact mask at its box without a warning, and masks of YOLACT reach beyond the network's
        boxes. So ``xyxy`` are the boxes of the masks here, in supervision's convention: the last column and row
        inclusive, as ``sv.mask_to_xyxy`` gives them. An instance whose mask is empty keeps the network's box.

        Returns:
            Detections with ``xyxy`` ``(n, 4)`` float32; ``mask``, an ``sv.CompactMask`` equal to ``self.mask.dense()``
            bit by bit, or that array in supervision before 0.28, which has no compact masks; ``confidence``;
            ``class_id``. In ``data``: ``"network_xyxy"`` ``(n, 4)`` float32, the boxes of :attr:`xyxy`;
            ``"class_name"`` ``(n,)`` text, unless :attr:`class_names` is None; ``"mask_confidence"`` ``(n,)`` float32
            of YOLACT++ models. Boxes and masks are new; confidences, classes and network boxes are the arrays of the
            instances, not copies.

        Raises:
            MissingDependencyError: supervision is not installed.
            ShapeError: ``class_names`` has no name for a class.
        """
        # In a module of its own, which imports an optional package.
        from yolact_runtime.masks.supervision_detections import to_detections

        data: dict[str, npt.NDArray[Any]] = {"network_xyxy": self.xyxy}
        if self.class_names is not None:
            names = [name_of_class(self.class_names, class_id) for class_id in self.class_id.tolist()]
            data["class_name"] = np.array(names, np.str_)
        if self.mask_confidence is not None:
            data["mask_confidence"] = self.mask_confidence
        return to_detections(self.xyxy, self.mask, self.confidence, self.class_id, data)

    def _name_or_none(self, class_id: int) -> str | None:
        """Return the name of a class; None if it has none, for text that must not fail."""
        names = self.class_names
        return names[class_id] if names is not None and 0 <= class_id < len(names) else None

    def _one(self, position: int) -> Instance:
        class_id = int(self.class_id[position])
        return Instance(
            self.xyxy[position],
            self.mask[position],
            float(self.confidence[position]),
            class_id,
            name_of_class(self.class_names, class_id),
            None if self.mask_confidence is None else float(self.mask_confidence[position]),
        )
