"""The feature pyramid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Fpn", "PyramidLevels"]

PyramidLevels = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Fpn(nn.Module):
    """Feature pyramid: C3, C4, C5 to P3..P7, all with the same number of channels.

    Lateral and output convolutions are stored coarsest first: index 0 belongs to C5. Shapes reveal swapped laterals,
    but nothing reveals swapped output convolutions.
    """

    def __init__(self, in_channels: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in reversed(in_channels))
        self.pred_layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.downsample_layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2))

    def forward(self, features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> PyramidLevels:
        """Compute P3, P4, P5 after their ReLU; P6 and P7 have none."""
        merged: list[torch.Tensor] = []
        for lateral, feature in zip(self.lat_layers, reversed(features), strict=True):
            x = lateral(feature)
            if merged:
                # To the size of the finer map, not by a factor of 2: 18 rows become 35.
                x = x + functional.interpolate(merged[-1], size=x.shape[2:], mode="bilinear", align_corners=False)
            merged.append(x)
        p5, p4, p3 = (functional.relu(layer(x)) for layer, x in zip(self.pred_layers, merged, strict=True))
        p6 = self.downsample_layers[0](p5)
        p7 = self.downsample_layers[1](p6)
        return p3, p4, p5, p6, p7
