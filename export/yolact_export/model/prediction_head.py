"""The prediction head, one for all levels of the pyramid."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["PredictionHead"]


class PredictionHead(nn.Module):
    """Layers for box regressions, class logits and mask coefficients of the priors of one level.

    Attributes:
        num_classes: Number of classes including the background.
        num_prototypes: Number of prototypes.
    """

    def __init__(self, channels: int, priors_per_cell: int, num_classes: int, num_prototypes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_prototypes = num_prototypes
        self.upfeature = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.bbox_layer = nn.Conv2d(channels, priors_per_cell * 4, 3, padding=1)
        self.conf_layer = nn.Conv2d(channels, priors_per_cell * num_classes, 3, padding=1)
        self.mask_layer = nn.Conv2d(channels, priors_per_cell * num_prototypes, 3, padding=1)

    def forward(self, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute ``(B, H * W * A, 4 | C | K)`` of ``level (B, F, H, W)``: rows, columns, then priors of a cell."""
        x = self.upfeature(level)
        return (
            _rows(self.bbox_layer(x), 4),
            _rows(self.conf_layer(x), self.num_classes),
            _rows(self.mask_layer(x), self.num_prototypes).tanh(),
        )


def _rows(x: torch.Tensor, size: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height * width * (channels // size), size)
