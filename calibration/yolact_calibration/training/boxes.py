"""Box geometry for training, in PyTorch: every function broadcasts over leading dimensions and is differentiable.

Boxes are relative to the network input, as xyxy corners unless they are called centre-size. The runtime has the same
arithmetic in NumPy; tests compare the two.
"""

from __future__ import annotations

import torch

__all__ = ["area", "cell_mask", "decode", "encode", "intersection", "pairwise_iou", "to_corners"]


def to_corners(cxcywh: torch.Tensor) -> torch.Tensor:
    """Convert ``(..., 4)`` centre-size boxes to xyxy."""
    half = cxcywh[..., 2:] / 2
    return torch.cat([cxcywh[..., :2] - half, cxcywh[..., :2] + half], dim=-1)


def area(xyxy: torch.Tensor) -> torch.Tensor:
    """Compute the ``(...)`` areas of ``(..., 4)`` boxes; 0 if a side is negative."""
    return (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0).prod(dim=-1)


def intersection(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the ``(..., n, m)`` shared areas of ``(..., n, 4)`` and ``(..., m, 4)`` boxes."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def pairwise_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the ``(..., n, m)`` IoU of ``(..., n, 4)`` and ``(..., m, 4)`` boxes; 0 if both are empty."""
    shared = intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), torch.zeros_like(shared))


def encode(xyxy: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]) -> torch.Tensor:
    """Compute ``(..., 4)`` regressions that turn centre-size `priors` into `xyxy`; the inverse of :func:`decode`."""
    centre = ((xyxy[..., :2] + xyxy[..., 2:]) / 2 - priors[..., :2]) / (variances[0] * priors[..., 2:])
    # An object cropped to nothing has no size, and its logarithm would be infinite.
    size = (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=1e-6)
    return torch.cat([centre, torch.log(size / priors[..., 2:]) / variances[1]], dim=-1)


def decode(regression: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]) -> torch.Tensor:
    """Compute ``(..., 4)`` corners from regressions on centre-size `priors`; neither clipped nor sorted."""
    centre = priors[..., :2] + regression[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * (regression[..., 2:] * variances[1]).exp()
    return to_corners(torch.cat([centre, size], dim=-1))


def cell_mask(xyxy: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the pixels of a map that lie in a box widened by one pixel, as the published crop does.

    Args:
        xyxy: ``(..., 4)`` relative boxes.
        height: Number of rows of the map.
        width: Number of columns of the map.

    Returns:
        Masks of the rows ``(..., height)`` and of the columns ``(..., width)``, bool; a pixel is inside if both
        its row and its column are.
    """
    column = torch.arange(width, device=xyxy.device, dtype=xyxy.dtype)
    row = torch.arange(height, device=xyxy.device, dtype=xyxy.dtype)
    left, top, right, bottom = ((xyxy * xyxy.new_tensor([width, height] * 2))[..., None]).unbind(dim=-2)
    return (row >= top - 1) & (row < bottom + 1), (column >= left - 1) & (column < right + 1)
