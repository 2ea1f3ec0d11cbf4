"""The training loss in plain loops over float64 numbers, from its published description: slow, and easy to verify.

A truth is a tuple of relative boxes ``(n, 4)``, classes ``(n,)``, masks ``(n, H, W)`` and ignored regions ``(m, 4)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "box_by_loops",
    "class_by_loops",
    "mask_by_loops",
    "mask_iou_by_loops",
    "match_by_loops",
    "semantic_by_loops",
]

Array = np.ndarray[Any, Any]


def corners(prior: Array) -> tuple[float, float, float, float]:
    cx, cy, w, h = map(float, prior)
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def intersection(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def area(box: Any) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def overlap(a: Any, b: Any) -> float:
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def match_by_loops(boxes: Array, class_id: Array, ignored: Array, priors: Array) -> tuple[list[int], list[int]]:
    """Return the class target (0 background, -1 neutral) and the object of each prior."""
    if len(boxes) == 0:
        best, index = [0.0] * len(priors), [0] * len(priors)
    else:
        table = [[overlap(box, corners(prior)) for box in boxes] for prior in priors]
        best = [max(row) for row in table]
        index = [row.index(max(row)) for row in table]
        free_boxes, free_priors = set(range(len(boxes))), set(range(len(priors)))
        # Each object in turn, the one with the largest overlap first, takes its best prior for itself.
        while free_boxes and free_priors:
            pairs = [(-table[p][b], b, p) for b in sorted(free_boxes) for p in sorted(free_priors)]
            _, box, prior = min(pairs)
            best[prior], index[prior] = math.inf, box
            free_boxes.remove(box)
            free_priors.remove(prior)
    target = []
    for place, prior in enumerate(priors):
        if best[place] >= 0.5:
            target.append(int(class_id[index[place]]) + 1)
            continue
        neutral = best[place] >= 0.4
        own = corners(prior)
        neutral |= any(intersection(own, region) / area(own) > 0.7 for region in ignored)
        target.append(-1 if neutral else 0)
    return target, index


def box_by_loops(regression: Array, targets: Sequence[Any], boxes: Sequence[Array], priors: Array) -> float:
    """Sum the smooth L1 loss between the regressions of positive priors and those of their objects."""
    total = 0.0
    for image, (target, index) in enumerate(targets):
        for place, prior in enumerate(priors.astype(float)):
            if target[place] <= 0:
                continue
            x1, y1, x2, y2 = boxes[image][index[place]].astype(float)
            wanted = [
                ((x1 + x2) / 2 - prior[0]) / (0.1 * prior[2]),
                ((y1 + y2) / 2 - prior[1]) / (0.1 * prior[3]),
                math.log((x2 - x1) / prior[2]) / 0.2,
                math.log((y2 - y1) / prior[3]) / 0.2,
            ]
            for value, want in zip(regression[image, place].astype(float), wanted, strict=True):
                distance = abs(value - want)
                total += 0.5 * distance**2 if distance < 1 else distance - 0.5
    return total


def class_by_loops(logit: Array, targets: Sequence[Any]) -> float:
    """Compute the cross entropy of the positives, and of the three hardest background priors per positive."""
    total = 0.0
    for image, (target, _) in enumerate(targets):
        log_sum = [math.log(sum(math.exp(value) for value in row)) for row in logit[image].astype(float)]
        positive = [place for place, value in enumerate(target) if value > 0]
        background = [place for place, value in enumerate(target) if value == 0]
        background.sort(key=lambda place: -(log_sum[place] - logit[image, place, 0]))
        for place in positive + background[: min(3 * len(positive), len(target) - 1)]:
            total += log_sum[place] - float(logit[image, place, target[place]])
    return total


def bce(logit: float, target: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if target else 1 - probability)


def shrink(mask: Array, height: int, width: int) -> Array:
    """Resize a mask bilinearly with half-pixel centres, and threshold it at a half."""
    result = np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * mask.shape[0] / height - 0.5, 0), mask.shape[0] - 1)
            x = min(max((j + 0.5) * mask.shape[1] / width - 0.5, 0), mask.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, mask.shape[0] - 1), min(x0 + 1, mask.shape[1] - 1)
            top = mask[y0, x0] * (1 - (x - x0)) + mask[y0, x1] * (x - x0)
            bottom = mask[y1, x0] * (1 - (x - x0)) + mask[y1, x1] * (x - x0)
            result[i, j] = top * (1 - (y - y0)) + bottom * (y - y0) > 0.5
    return result


def inside(box: Array, height: int, width: int) -> list[tuple[int, int]]:
    """Return rows and columns of the pixels in a box that is widened by one pixel on every side."""
    x1, y1, x2, y2 = box.astype(float)
    return [
        (i, j)
        for i in range(height)
        for j in range(width)
        if max(y1 * height - 1, 0) <= i < min(y2 * height + 1, height)
        and max(x1 * width - 1, 0) <= j < min(x2 * width + 1, width)
    ]


def mask_by_loops(prototype: Array, coefficient: Array, targets: Sequence[Any], truths: Sequence[Any]) -> float:
    """Compute the binary cross entropy of the masks of positive priors.

    It is taken inside the widened true box, and divided by the area of the true box.
    """
    total = 0.0
    _, _, height, width = prototype.shape
    for image, (target, index) in enumerate(targets):
        boxes, _, masks, _ = truths[image]
        for place, value in enumerate(target):
            if value <= 0:
                continue
            box, true = boxes[index[place]], shrink(masks[index[place]], height, width)
            pixels = 0.0
            for i, j in inside(box, height, width):
                logit = float(prototype[image, :, i, j].astype(float) @ coefficient[image, place].astype(float))
                pixels += bce(logit, bool(true[i, j]))
            total += pixels / (float(box[2] - box[0]) * width * float(box[3] - box[1]) * height)
    return total


def mask_iou_by_loops(
    prototype: Array,
    coefficient: Array,
    targets: Sequence[Any],
    truths: Sequence[Any],
    network: Callable[[Array], Sequence[float]],
) -> tuple[float, int]:
    """Sum the smooth L1 loss between predicted and actual mask IoU of positive priors.

    The result is the sum, and the number of masks.
    """
    total, num_counted = 0.0, 0
    _, _, height, width = prototype.shape
    for image, (target, index) in enumerate(targets):
        boxes, class_id, masks, _ = truths[image]
        for place, value in enumerate(target):
            if value <= 0:
                continue
            true = shrink(masks[index[place]], height, width)
            soft = np.zeros((height, width))
            for i, j in inside(boxes[index[place]], height, width):
                logit = float(prototype[image, :, i, j].astype(float) @ coefficient[image, place].astype(float))
                soft[i, j] = 1 / (1 + math.exp(-logit))
            found = soft > 0.5
            if found.sum() <= 25 or true.sum() <= 25:
                continue
            num_counted += 1
            actual = (found & true).sum() / (found | true).sum()
            distance = abs(network(soft)[int(class_id[index[place]])] - actual)
            total += 0.5 * distance**2 if distance < 1 else distance - 0.5
    return total, num_counted


def semantic_by_loops(logit: Array, truths: Sequence[Any]) -> float:
    """Compute the binary cross entropy of every class map, over the pixels of a map."""
    total = 0.0
    _, num_classes, height, width = logit.shape
    for image, (_, class_id, masks, _) in enumerate(truths):
        small = [shrink(mask, height, width) for mask in masks]
        for c in range(num_classes):
            for i in range(height):
                for j in range(width):
                    target = any(m[i, j] for m, owner in zip(small, class_id, strict=True) if owner == c)
                    total += bce(float(logit[image, c, i, j]), target)
    return total / (height * width)
