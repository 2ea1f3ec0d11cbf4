"""Specification of YOLACT's pre- and post-processing in plain NumPy: short, slow, and easy to read.

Every faster implementation, in the runtime and in the CUDA kernels, is tested against the function of the same name
here. Source: the published algorithm (YOLACT, ICCV 2019; YOLACT++, TPAMI 2020) with the details of the original code:
no clipping before suppression, no second score threshold, crop at prototype resolution with one pixel of padding, then
bilinear upsampling, then ``> 0.5``.

Boxes are ``xyxy`` relative to the image unless a name says otherwise. All returned arrays are new.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_plugins.colour import BT601, YuvMatrix

__all__ = [
    "Selection",
    "candidates",
    "class_score",
    "crop_window",
    "cross_class_fast_nms",
    "decode",
    "fast_nms",
    "id_map",
    "iou",
    "mask_assembly",
    "mask_iou",
    "nv12_to_bgr",
    "preprocess",
    "resize_bilinear",
    "soft_masks",
    "traditional_nms",
    "yuyv_to_bgr",
]

Float = npt.NDArray[np.float32]


class Selection(NamedTuple):
    """Kept detections, best first.

    Attributes:
        prior: Rows of the prior axis, ``(n,)``.
        class_id: Foreground classes from 0 on, ``(n,)``.
        confidence: Confidences, ``(n,)``.
    """

    prior: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int64]
    confidence: Float


def resize_bilinear(image: npt.NDArray[np.generic], height: int, width: int) -> Float:
    """Resize with half-pixel centres and no antialiasing: PyTorch's ``align_corners=False``, OpenCV's ``INTER_LINEAR``.

    Args:
        image: Image of shape ``(H, W)`` or ``(H, W, channels)`` and any real dtype; converted to float32 before
            interpolation.
        height: Number of rows of the result.
        width: Number of columns of the result.

    Returns:
        The resized image, ``(height, width[, channels])`` float32.
    """
    source = image.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        length = source.shape[axis]
        position = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0.0)
        low = np.minimum(position.astype(np.int64), length - 1)
        high = np.minimum(low + 1, length - 1)
        fraction = (position - low).astype(np.float32)
        fraction = fraction.reshape([-1 if a == axis else 1 for a in range(source.ndim)])
        source = source.take(low, axis) * (1 - fraction) + source.take(high, axis) * fraction
    return source


def _yuv_to_bgr(luma: npt.NDArray[np.uint8], u: Float, v: Float, matrix: YuvMatrix) -> Float:
    grey = (luma - np.float32(matrix.luma_offset)) * np.float32(matrix.luma_gain)
    u, v = u - np.float32(128), v - np.float32(128)
    blue = grey + np.float32(matrix.blue_u) * u
    green = grey + np.float32(matrix.green_u) * u + np.float32(matrix.green_v) * v
    red = grey + np.float32(matrix.red_v) * v
    colour: Float = np.clip(np.stack([blue, green, red], axis=-1), 0, 255)
    return colour


def nv12_to_bgr(luma: npt.NDArray[np.uint8], chroma: npt.NDArray[np.uint8], matrix: YuvMatrix = BT601) -> Float:
    """Convert an NV12 frame to BGR, clipped to 0..255 but not rounded; chroma is repeated, not interpolated.

    Args:
        luma: Luma plane, ``(H, W)``.
        chroma: Chroma plane, ``(ceil(H / 2), ceil(W / 2), 2)``: U and V of each block of 2 x 2 pixels.
        matrix: Colour matrix of the camera.

    Returns:
        The image, ``(H, W, 3)`` float32, blue first.
    """
    height, width = luma.shape
    full = chroma.repeat(2, axis=0).repeat(2, axis=1)[:height, :width].astype(np.float32)
    return _yuv_to_bgr(luma, full[..., 0], full[..., 1], matrix)


def yuyv_to_bgr(packed: npt.NDArray[np.uint8], width: int, matrix: YuvMatrix = BT601) -> Float:
    """Convert a YUYV frame ``(H, ceil(width / 2), 4)`` (Y, U, Y, V of two pixels) as :func:`nv12_to_bgr` does NV12."""
    luma = packed[..., ::2].reshape(len(packed), -1)[:, :width]
    full = packed[..., 1::2].repeat(2, axis=1)[:, :width].astype(np.float32)
    return _yuv_to_bgr(luma, full[..., 0], full[..., 1], matrix)


def preprocess(
    frame: npt.NDArray[np.uint8] | Float,
    height: int,
    width: int,
    mean_bgr: tuple[float, float, float],
    std_bgr: tuple[float, float, float],
    channel_order: str,
) -> Float:
    """Stretch a BGR frame to the network input and normalise it.

    Args:
        frame: Image ``(H, W, 3)``, blue first; uint8, or the float32 result of a YUV conversion.
        height: Number of rows of the network input.
        width: Number of columns of the network input.
        mean_bgr: Mean to subtract, on the 0..255 scale, blue first.
        std_bgr: Standard deviation to divide by, on the 0..255 scale, blue first.
        channel_order: Channel order of the network: ``"RGB"`` swaps the channels after normalising, ``"BGR"`` keeps
            them.

    Returns:
        The network input, ``(1, 3, height, width)`` float32, contiguous.
    """
    image = (resize_bilinear(frame, height, width) - np.array(mean_bgr, np.float32)) / np.array(std_bgr, np.float32)
    if channel_order == "RGB":
        image = image[..., ::-1]
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def class_score(class_logit: Float) -> Float:
    """Compute the softmax over the last axis; class 0 is the background."""
    exponential = np.exp(class_logit - class_logit.max(axis=-1, keepdims=True))
    score: Float = (exponential / exponential.sum(axis=-1, keepdims=True)).astype(np.float32)
    return score


def decode(box_regression: Float, priors: Float, variances: tuple[float, float] = (0.1, 0.2)) -> Float:
    """Decode box regressions ``(P, 4)`` at centre-size priors ``(P, 4)`` to relative ``xyxy`` boxes, not clipped."""
    centre = priors[:, :2] + box_regression[:, :2] * np.float32(variances[0]) * priors[:, 2:]
    size = priors[:, 2:] * np.exp(box_regression[:, 2:] * np.float32(variances[1]))
    corner = centre - size / 2
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def candidates(foreground_score: Float, score_threshold: float = 0.05) -> npt.NDArray[np.int64]:
    """Find the priors whose best foreground score ``(P, C - 1)`` exceeds the threshold, in ascending order."""
    return np.flatnonzero(foreground_score.max(axis=1) > np.float32(score_threshold))


def iou(a: Float, b: Float, offset: float = 0.0) -> Float:
    """Compute the ``(n, m)`` IoU of ``(n, 4)`` and ``(m, 4)`` boxes; ``offset=1`` is the inclusive-pixel convention."""
    # Boxes without area and boxes beyond float32 get the IoU that the arithmetic yields, usually NaN.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        corner = np.maximum(a[:, None, :2], b[None, :, :2])
        size = np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - corner + np.float32(offset), 0)
        intersection = size[..., 0] * size[..., 1]
        area_a, area_b = (np.prod(box[:, 2:] - box[:, :2] + np.float32(offset), axis=1) for box in (a, b))
        union = area_a[:, None] + area_b[None] - intersection
        overlap: Float = (intersection / union).astype(np.float32)
    return overlap


def _by_confidence(confidence: Float, class_id: npt.NDArray[np.int64], prior: npt.NDArray[np.int64]) -> Selection:
    """Sort best first; ties by lower class, then by lower prior."""
    order = np.lexsort((prior, class_id, -confidence))
    return Selection(prior[order], class_id[order], confidence[order])


def _take(selection: Selection, chosen: slice | npt.NDArray[np.bool_]) -> Selection:
    return Selection(selection.prior[chosen], selection.class_id[chosen], selection.confidence[chosen])


def _matrix_suppress(xyxy: Float, iou_threshold: float) -> npt.NDArray[np.bool_]:
    """Apply Fast NMS to sorted boxes: keep those whose IoU with *every* better box is within the threshold.

    A NaN IoU (two boxes without area) drops the box, as upstream: ``NaN <= threshold`` is false.
    """
    overlap = np.triu(iou(xyxy, xyxy), k=1)
    keep: npt.NDArray[np.bool_] = overlap.max(axis=0, initial=0.0) <= np.float32(iou_threshold)
    return keep


def fast_nms(
    xyxy: Float,
    foreground_score: Float,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    top_k: int = 200,
    max_instances: int = 100,
) -> Selection:
    """Apply YOLACT's Fast NMS (matrix NMS) per class, without a second score threshold.

    A box is dropped when its IoU with any better box of its class exceeds ``iou_threshold``, even when that better box
    is itself dropped. A candidate stays in the list of *every* class, with its small scores too.

    Args:
        xyxy: Boxes of all priors, ``(P, 4)``.
        foreground_score: Softmax scores without the background, ``(P, C - 1)``.
        score_threshold: Threshold for the best class: priors strictly above it are candidates.
        iou_threshold: Maximum IoU of two kept boxes of one class.
        top_k: Maximum number of boxes considered per class, best first.
        max_instances: Maximum number of boxes returned over all classes.
    """
    candidate = candidates(foreground_score, score_threshold)
    kept: list[Selection] = []
    for class_id in range(foreground_score.shape[1]):
        score = foreground_score[candidate, class_id]
        order = np.lexsort((candidate, -score))[:top_k]
        prior, score = candidate[order], score[order]
        keep = _matrix_suppress(xyxy[prior], iou_threshold)
        kept.append(Selection(prior[keep], np.full(keep.sum(), class_id), score[keep]))
    prior, ids, scores = (np.concatenate([part[i] for part in kept]) for i in range(3))
    return _take(_by_confidence(scores, ids, prior), slice(max_instances))


def cross_class_fast_nms(
    xyxy: Float,
    foreground_score: Float,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    top_k: int = 200,
) -> Selection:
    """Apply Fast NMS to the best class of each candidate.

    Return ``top_k`` boxes, without a limit of 100, as upstream.
    """
    candidate = candidates(foreground_score, score_threshold)
    class_id = foreground_score[candidate].argmax(axis=1)
    score = foreground_score[candidate, class_id]
    best = _take(_by_confidence(score, class_id, candidate), slice(top_k))
    return _take(best, _matrix_suppress(xyxy[best.prior], iou_threshold))


def traditional_nms(
    xyxy: Float,
    foreground_score: Float,
    *,
    input_size: tuple[int, int],
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_instances: int = 100,
) -> Selection:
    """Apply greedy NMS per class in input pixels, with the inclusive-pixel (+1) convention of upstream.

    Args:
        xyxy: Boxes of all priors, ``(P, 4)``.
        foreground_score: Softmax scores without the background, ``(P, C - 1)``.
        input_size: Size ``(height, width)`` of the network input, by which upstream multiplies boxes before
            suppression.
        score_threshold: Threshold above which scores are kept, for each class.
        iou_threshold: IoU with a kept box at which a box is dropped (``>=``, unlike Fast NMS).
        max_instances: Maximum number of boxes returned over all classes.
    """
    candidate = candidates(foreground_score, score_threshold)
    with np.errstate(over="ignore"):  # as in the IoU
        xyxy_px = xyxy * np.array([input_size[1], input_size[0]] * 2, np.float32)
    kept: list[tuple[int, int, np.float32]] = []
    for class_id in range(foreground_score.shape[1]):
        score = foreground_score[:, class_id]
        pending = [p for p in candidate[np.argsort(-score[candidate], kind="stable")] if score[p] > score_threshold]
        while pending:
            best = pending.pop(0)
            kept.append((best, class_id, score[best]))
            pending = [p for p in pending if iou(xyxy_px[[best]], xyxy_px[[p]], offset=1.0)[0, 0] < iou_threshold]
    prior, ids, scores = (np.array([row[i] for row in kept]) for i in range(3))
    best_first = _by_confidence(scores.astype(np.float32), ids.astype(np.int64), prior.astype(np.int64))
    return _take(best_first, slice(max_instances))


def crop_window(low: float, high: float, size: int, margin: float = 0.0, padding: float = 1.0) -> tuple[int, int]:
    """Return the prototype pixels ``[first, last)`` inside a box along one axis: ``i`` is kept iff ``low <= i < high``.

    Args:
        low: One end of the box, relative to the image.
        high: The other end; upstream accepts the ends in any order.
        size: Number of prototype pixels along the axis.
        margin: Fraction of the box's length added on both sides (0 upstream); ``inf`` does not crop.
        padding: Number of prototype pixels added on both sides (1 upstream).

    Returns:
        The half-open range; ``first >= last`` if it is empty or the box is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0, 0
    if math.isinf(margin):
        return 0, size
    near, far = np.float32(min(low, high)), np.float32(max(low, high))
    with np.errstate(over="ignore"):
        extra = np.float32(margin) * (far - near) if margin else np.float32(0)
        first = max(float((near - extra) * np.float32(size) - np.float32(padding)), 0.0)
        last = min(float((far + extra) * np.float32(size) + np.float32(padding)), float(size))
    return math.ceil(min(first, size)), math.ceil(max(last, 0.0))


def soft_masks(prototype: Float, mask_coefficient: Float, xyxy: Float, margin: float = 0.0) -> Float:
    """Compute the cropped probabilities at prototype resolution that YOLACT++'s mask-IoU network reads.

    Args:
        prototype: Prototypes, ``(K, Hp, Wp)``.
        mask_coefficient: Mask coefficients, ``(n, K)``.
        xyxy: Boxes, ``(n, 4)``.
        margin: Fraction of the box's length added on both sides; see :func:`crop_window`.

    Returns:
        Probabilities, ``(n, Hp, Wp)``; zero outside the box.
    """
    height, width = prototype.shape[1:]
    masks = np.zeros((len(xyxy), height, width), np.float32)
    for mask, coefficient, box in zip(masks, mask_coefficient, xyxy, strict=True):
        left, right = crop_window(box[0], box[2], width, margin)
        top, bottom = crop_window(box[1], box[3], height, margin)
        linear = np.tensordot(coefficient, prototype, axes=1)
        # Clipping keeps exp() finite; the float32 sigmoid is exactly 0 or 1 there.
        probability = 1 / (1 + np.exp(-np.clip(linear, -80, 80)))
        mask[top:bottom, left:right] = probability[top:bottom, left:right]
    return masks


def mask_assembly(
    prototype: Float, mask_coefficient: Float, xyxy: Float, height: int, width: int, margin: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Compute binary masks in the frame: combine, sigmoid, crop, upsample, ``> 0.5``, in this order.

    Args:
        prototype: Prototypes, ``(K, Hp, Wp)``.
        mask_coefficient: Mask coefficients, ``(n, K)``.
        xyxy: Boxes, ``(n, 4)``.
        height: Number of rows of the frame.
        width: Number of columns of the frame.
        margin: Fraction of the box's length added on both sides; see :func:`crop_window`.

    Returns:
        The masks, ``(n, height, width)`` bool.
    """
    masks = np.zeros((len(xyxy), height, width), bool)
    for mask, soft in zip(masks, soft_masks(prototype, mask_coefficient, xyxy, margin), strict=True):
        mask[:] = resize_bilinear(soft, height, width) > 0.5
    return masks


def mask_iou(masks: Float, layers: Sequence[tuple[Float, Float]]) -> Float:
    """Predict how well masks fit their objects with the mask-IoU network of YOLACT++.

    Args:
        masks: Masks ``(n, Hp, Wp)`` from :func:`soft_masks` with the published crop, whatever margin the frame's masks
            have.
        layers: Weights ``(outputs, inputs, side, side)`` and biases ``(outputs,)`` of each convolution. A 3 x 3
            convolution has stride 2, a 1 x 1 convolution stride 1; neither is padded.

    Returns:
        Predicted IoU per class, ``(n, C - 1)``; at least 0, but not bounded by 1.
    """
    maps = masks[:, None]
    for weight, bias in layers:
        side = weight.shape[-1]
        stride = 2 if side == 3 else 1
        seen = np.lib.stride_tricks.sliding_window_view(maps, (side, side), (2, 3))[:, :, ::stride, ::stride]
        sums = np.tensordot(seen, weight, axes=((1, 4, 5), (1, 2, 3))) + bias
        maps = np.maximum(np.moveaxis(sums, 3, 1), 0)
    best: Float = maps.max(axis=(2, 3))
    return best


def id_map(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Compute the ``(H, W)`` id map of masks ``(n, H, W)``: ``i + 1`` where mask ``i`` is the first, 0 if none is."""
    top = np.zeros(masks.shape[1:], np.int32)
    for i in reversed(range(len(masks))):
        top[masks[i]] = i + 1
    return top
