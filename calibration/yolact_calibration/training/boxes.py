"""Box geometry for training, in torch: every function broadcasts over leading dimensions and passes gradients.

Boxes are relative to the network input, as xyxy corners unless they are called centre-size. The runtime has the same
arithmetic for NumPy; the tests hold the two together.
"""

from __future__ import annotations

import torch

__all__ = ["area", "cell_mask", "decode", "encode", "intersection", "pairwise_iou", "to_corners"]


def to_corners(cxcywh: torch.Tensor) -> torch.Tensor:
    """``(..., 4)`` centre-size boxes as xyxy."""
    half = cxcywh[..., 2:] / 2
    return torch.cat([cxcywh[..., :2] - half, cxcywh[..., :2] + half], dim=-1)


def area(xyxy: torch.Tensor) -> torch.Tensor:
    """``(...)`` areas of ``(..., 4)``; 0 for boxes turned inside out."""
    return (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0).prod(dim=-1)


def intersection(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``(..., n, m)`` shared areas of ``(..., n, 4)`` and ``(..., m, 4)``."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def pairwise_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``(..., n, m)`` IoU of ``(..., n, 4)`` and ``(..., m, 4)``; 0 where both are empty."""
    shared = intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), torch.zeros_like(shared))


def encode(xyxy: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]) -> torch.Tensor:
    """Regressions ``(..., 4)`` that turn ``priors (..., 4)``, centre-size, into ``xyxy``; undoes :func:`decode`."""
    centre = ((xyxy[..., :2] + xyxy[..., 2:]) / 2 - priors[..., :2]) / (variances[0] * priors[..., 2:])
    # An object cut to nothing has no size; its logarithm would be infinite.
    size = (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=1e-6)
    return torch.cat([centre, torch.log(size / priors[..., 2:]) / variances[1]], dim=-1)


def decode(regression: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]) -> torch.Tensor:
    """``(..., 4)`` corners of regressions on ``priors (..., 4)``, centre-size; neither clipped nor sorted."""
    centre = priors[..., :2] + regression[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * (regression[..., 2:] * variances[1]).exp()
    return to_corners(torch.cat([centre, size], dim=-1))


def cell_mask(xyxy: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels of a map lie in a box widened by one pixel, as the published crop decides it.

    Args:
        xyxy: ``(..., 4)``, relative.
        height: Rows of the map.
        width: Its columns.

    Returns:
        ``(..., height)`` and ``(..., width)`` bool; a pixel lies inside where both its row and its column do.
    """
    column = torch.arange(width, device=xyxy.device, dtype=xyxy.dtype)
    row = torch.arange(height, device=xyxy.device, dtype=xyxy.dtype)
    left, top, right, bottom = ((xyxy * xyxy.new_tensor([width, height] * 2))[..., None]).unbind(dim=-2)
    return (row >= top - 1) & (row < bottom + 1), (column >= left - 1) & (column < right + 1)
