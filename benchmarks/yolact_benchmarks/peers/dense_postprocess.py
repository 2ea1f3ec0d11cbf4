"""Peer in PyTorch: YOLACT's published post-processing, with a dense mask of the frame for each instance.

This is what the original and most current tools do, written to be as fast as the approach can be: one softmax, one
decode, one batched Fast NMS over all classes, one matrix product for all masks, in place where PyTorch allows it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DenseInstances", "dense_postprocess"]


class DenseInstances(NamedTuple):
    """``xyxy (n, 4)`` pixels, ``mask (n, H, W)`` bool, ``confidence (n,)``, ``class_id (n,)``."""

    xyxy: Tensor
    mask: Tensor
    confidence: Tensor
    class_id: Tensor


def dense_postprocess(
    box_regression: Tensor,
    class_logit: Tensor,
    mask_coefficient: Tensor,
    prototype: Tensor,
    priors: Tensor,
    height: int,
    width: int,
    min_confidence: float = 0.0,
) -> DenseInstances:
    """Compute the instances of one image from outputs without a batch axis.

    The outputs are box regressions ``(P, 4)``, class logits ``(P, C)``, mask coefficients ``(P, K)`` and prototypes
    ``(K, Hp, Wp)``. `min_confidence` is a second score threshold, which the published post-processing does not have.
    """
    score = class_logit.softmax(dim=-1)[:, 1:]
    kept = score.max(dim=1).values > 0.05
    if not kept.any():
        none = score.new_zeros((0, 4))
        return DenseInstances(none, none.new_zeros((0, height, width)).bool(), none[:, 0], none[:, 0].long())
    score, coefficient = score[kept].T, mask_coefficient[kept]
    centre = priors[kept, :2] + box_regression[kept, :2] * 0.1 * priors[kept, 2:]
    size = priors[kept, 2:] * torch.exp(box_regression[kept, 2:] * 0.2)
    corner = centre - size / 2
    boxes = torch.cat([corner, corner + size], dim=1)
    boxes, coefficient, class_id, confidence = _fast_nms(boxes, coefficient, score)
    if min_confidence > 0:
        kept = confidence > min_confidence
        boxes, coefficient, class_id, confidence = boxes[kept], coefficient[kept], class_id[kept], confidence[kept]
    masks = torch.sigmoid(torch.einsum("khw,nk->nhw", prototype, coefficient))
    masks = _crop(masks, boxes)
    masks = functional.interpolate(masks[None], (height, width), mode="bilinear", align_corners=False)[0] > 0.5
    scale = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    return DenseInstances(boxes * scale, masks, confidence, class_id)


def _fast_nms(boxes: Tensor, coefficient: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    score, order = score.sort(dim=1, descending=True)
    score, order = score[:, :200], order[:, :200]
    sorted_boxes = boxes[order]
    low = torch.maximum(sorted_boxes[:, :, None, :2], sorted_boxes[:, None, :, :2])
    high = torch.minimum(sorted_boxes[:, :, None, 2:], sorted_boxes[:, None, :, 2:])
    shared = (high - low).clamp_(min=0).prod(dim=-1)
    area = (sorted_boxes[..., 2:] - sorted_boxes[..., :2]).prod(dim=-1)
    overlap = shared / (area[:, :, None] + area[:, None] - shared)
    keep = overlap.triu_(diagonal=1).max(dim=1).values <= 0.5
    class_id = torch.arange(len(score))[:, None].expand_as(order)[keep]
    confidence, place = score[keep].sort(descending=True)
    place, confidence = place[:100], confidence[:100]
    prior = order[keep][place]
    return boxes[prior], coefficient[prior], class_id[place], confidence


def _crop(masks: Tensor, boxes: Tensor) -> Tensor:
    rows = torch.arange(masks.shape[1], dtype=boxes.dtype)[None, :, None]
    columns = torch.arange(masks.shape[2], dtype=boxes.dtype)[None, None, :]
    x, y = boxes[:, 0::2] * masks.shape[2], boxes[:, 1::2] * masks.shape[1]
    left, right = (x.min(dim=1).values - 1).clamp(min=0), (x.max(dim=1).values + 1).clamp(max=masks.shape[2])
    top, bottom = (y.min(dim=1).values - 1).clamp(min=0), (y.max(dim=1).values + 1).clamp(max=masks.shape[1])
    inside = (columns >= left[:, None, None]) & (columns < right[:, None, None])
    inside = inside & (rows >= top[:, None, None]) & (rows < bottom[:, None, None])
    return masks * inside
