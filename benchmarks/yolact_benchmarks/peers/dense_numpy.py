"""Peer without PyTorch: post-processing in NumPy and OpenCV, with a dense mask for each instance.

It computes a softmax over all priors, boxes of all candidates, Fast NMS class by class, one matrix product, a crop, and
one resize to the frame for each instance. It is written to be as fast as this approach can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_runtime.model.manifest import InputSpec

__all__ = ["DenseResult", "dense_numpy_postprocess", "opencv_preprocess"]

Float = npt.NDArray[np.float32]
_SCORE, _TOP_K, _IOU, _MOST = 0.05, 200, 0.5, 100


class DenseResult(NamedTuple):
    """``xyxy (n, 4)`` pixels, ``mask (n, H, W)`` bool, ``confidence (n,)``, ``class_id (n,)``."""

    xyxy: Float
    mask: npt.NDArray[np.bool_]
    confidence: Float
    class_id: npt.NDArray[np.int64]


def opencv_preprocess(frame: npt.NDArray[np.uint8], spec: InputSpec) -> Float:
    """Convert a frame to the network's input ``(1, 3, H, W)`` float32, with OpenCV's resize."""
    import cv2

    small: Any = cv2.resize(frame, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    small -= np.asarray(spec.mean_bgr, np.float32)
    small /= np.asarray(spec.std_bgr, np.float32)
    return np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1)[None])


def dense_numpy_postprocess(
    outputs: Mapping[str, npt.NDArray[np.floating]], priors: Float, min_confidence: float, height: int, width: int
) -> DenseResult:
    """Compute the instances of one frame from the network's outputs.

    Args:
        outputs: Outputs of the network by name, batch 1.
        priors: ``(P, 4)`` float32 priors: centre and size, relative to the frame.
        min_confidence: The second score threshold.
        height: Height of the frame, pixels.
        width: Width of the frame, pixels.
    """
    logit = outputs["class_logit"][0]
    score = np.exp(logit - logit.max(axis=1, keepdims=True))
    score /= score.sum(axis=1, keepdims=True)
    score = score[:, 1:]
    kept = score.max(axis=1) > _SCORE
    score, anchors, offset = score[kept], priors[kept], outputs["box_regression"][0][kept]
    centre = anchors[:, :2] + offset[:, :2] * 0.1 * anchors[:, 2:]
    size = anchors[:, 2:] * np.exp(offset[:, 2:] * 0.2)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    rows, class_id = _fast_nms(boxes, score, min_confidence)
    confidence = score[rows, class_id]
    chosen = boxes[rows]
    masks = _masks(outputs["prototype"][0], outputs["mask_coefficient"][0][kept][rows], chosen, height, width)
    scale = np.array([width, height, width, height], np.float32)
    return DenseResult((chosen * scale).astype(np.float32), masks, confidence, class_id)


def _fast_nms(boxes: Float, score: Float, min_confidence: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found: list[tuple[npt.NDArray[np.int64], int]] = []
    for class_id in np.flatnonzero((score > min_confidence).any(axis=0)).tolist():
        rows = np.flatnonzero(score[:, class_id] > min_confidence)
        rows = rows[np.argsort(-score[rows, class_id], kind="stable")][:_TOP_K]
        overlap = np.triu(_iou(boxes[rows]), 1)
        found.append((rows[overlap.max(axis=0) <= _IOU], class_id))
    rows = np.concatenate([rows for rows, _ in found]) if found else np.zeros(0, np.int64)
    classes = np.concatenate([np.full(len(r), c) for r, c in found]) if found else np.zeros(0, np.int64)
    best = np.argsort(-score[rows, classes], kind="stable")[:_MOST]
    return rows[best], classes[best]


def _iou(boxes: Float) -> Float:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlap: Float = shared / (area[:, None] + area[None] - shared)
    return overlap


def _masks(
    prototype: npt.NDArray[np.floating],
    coefficient: npt.NDArray[np.floating],
    boxes: Float,
    height: int,
    width: int,
) -> npt.NDArray[np.bool_]:
    import cv2

    channels, rows, columns = prototype.shape
    soft = 1 / (1 + np.exp(-(coefficient @ prototype.reshape(channels, -1))))
    masks = np.zeros((len(boxes), height, width), bool)
    for i, (box, plane) in enumerate(zip(boxes, soft.reshape(-1, rows, columns), strict=True)):
        left, right = np.clip([box[0] * columns - 1, box[2] * columns + 1], 0, columns)
        top, bottom = np.clip([box[1] * rows - 1, box[3] * rows + 1], 0, rows)
        x, y = np.arange(columns), np.arange(rows)[:, None]
        cropped = plane * ((x >= left) & (x < right) & (y >= top) & (y < bottom))
        resized: Any = cv2.resize(cropped.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        masks[i] = resized > 0.5
    return masks
