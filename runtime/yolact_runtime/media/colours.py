"""Colours of instances: by rank, by class, or kept from one frame of a video to the next."""

from __future__ import annotations

import colorsys
import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from yolact_runtime.masks.instances import Instances

__all__ = ["InstanceColours", "class_colours", "instance_colour"]

Float = npt.NDArray[np.float32]
# Distance of successive hues on the colour wheel, which keeps any number of neighbours in a list distinct.
_GOLDEN_RATIO = 0.618034
_LEAST_IOU = 0.2
_REMEMBERED_FRAMES = 10
"""Number of frames for which the colour of a missing instance is not reused.

A third of a second at 30 frames a second.
"""


def instance_colour(index: int) -> Float:
    """Return a colour, ``(3,)`` float32: blue, green, red in 0..255; neighbouring indices differ strongly."""
    saturation, value = ((0.85, 1.0), (0.6, 1.0), (0.9, 0.8))[index // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, saturation, value)
    return np.array([blue, green, red], np.float32) * 255


def class_colours(class_id: npt.NDArray[np.int32]) -> Float:
    """Return the colour of each instance's class, ``(n, 3)`` float32; it is the same in every picture.

    Args:
        class_id: Class ids, ``(n,)``, 0 or above.
    """
    return _colours(class_id.tolist())


@dataclasses.dataclass
class _Known:
    """A colour in use: the last box of its instance, and the number of frames since."""

    number: int
    box: Float
    class_id: int
    age: int = 0


class InstanceColours:
    """Colours of instances that persist from one frame of a video to the next, so that pictures do not flicker.

    Instances are listed best first, and their order changes with every frame. Each instance inherits the colour of the
    instance of the same class whose box overlaps its own most in the previous frame, or in one of the ten frames before
    if it was missed since; a new one gets an unused colour. This serves the eye and is not a tracker: objects of one
    class that cross, or move by more than their own size between two frames, may swap colours.

    An object holds the state of one video; use it in one thread at a time.
    """

    def __init__(self) -> None:
        self._known: list[_Known] = []

    def assign(self, instances: Instances) -> Float:
        """Return the colours of the next frame's instances.

        Args:
            instances: Instances of the frame after the previous call's; not kept.

        Returns:
            Colours ``(n, 3)`` float32: blue, green, red in 0..255, in the order of the instances; the caller owns them.
        """
        owner = self._match(instances)
        for one in self._known:
            one.age += 1
        self._known = [one for one in self._known if one.age <= _REMEMBERED_FRAMES]
        used = {one.number for one in self._known}
        free = (number for number in itertools.count() if number not in used)
        numbers = []
        for i, class_id in enumerate(instances.class_id.tolist()):
            known = owner.get(i)
            if known is None:
                known = _Known(next(free), instances.xyxy[i], class_id)
                self._known.append(known)
            known.box, known.age = instances.xyxy[i].copy(), 0
            numbers.append(known.number)
        return _colours(numbers)

    def _match(self, instances: Instances) -> dict[int, _Known]:
        """Match instances with known ones; pairs with the largest overlap come first."""
        if not self._known or not len(instances):
            return {}
        iou = _box_iou(instances.xyxy, np.stack([one.box for one in self._known]))
        iou[instances.class_id[:, None] != np.array([one.class_id for one in self._known])] = 0
        owner: dict[int, _Known] = {}
        taken: set[int] = set()
        # Stable: among equal overlaps the better instance comes first, so that a video always has the same colours.
        for place in np.argsort(-iou, axis=None, kind="stable").tolist():
            i, j = divmod(place, len(self._known))
            if iou[i, j] < _LEAST_IOU:
                break
            if i not in owner and j not in taken:
                owner[i] = self._known[j]
                taken.add(j)
        return owner


def _colours(numbers: Iterable[int]) -> Float:
    return np.array([instance_colour(number) for number in numbers], np.float32).reshape(-1, 3)


def _box_iou(one: Float, other: Float) -> npt.NDArray[np.float64]:
    """Return the intersection over union, ``(n, m)``; a box without area has 0."""
    mine, theirs = one[:, None].astype(np.float64), other[None].astype(np.float64)
    sides = np.minimum(mine[..., 2:], theirs[..., 2:]) - np.maximum(mine[..., :2], theirs[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.maximum(box[..., 2:] - box[..., :2], 0).prod(axis=-1) for box in (mine, theirs)]
    union = areas[0] + areas[1] - shared
    iou: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
