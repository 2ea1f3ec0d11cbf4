"""The mask-IoU network of YOLACT++, which predicts how well a mask fits the object of its class."""

from __future__ import annotations

import itertools

import torch
from torch import nn

__all__ = ["MaskIouNet"]

_WIDTHS = (1, 8, 16, 32, 64, 128)


class MaskIouNet(nn.Module):
    """Five stride-2 convolutions *without padding*, a 1x1 convolution, ReLUs, and the maximum over the map.

    The sides of a 138 x 138 mask become 68, 33, 16, 7, 3.
    """

    def __init__(self, num_foreground_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, out_channels in itertools.pairwise(_WIDTHS):
            layers += [nn.Conv2d(in_channels, out_channels, 3, stride=2), nn.ReLU()]
        layers += [nn.Conv2d(_WIDTHS[-1], num_foreground_classes, 1), nn.ReLU()]
        # Published keys repeat the name: maskiou_net.maskiou_net.0.weight.
        self.maskiou_net = nn.Sequential(*layers)

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        """Predict the IoU per class.

        Args:
            mask: ``(N, 1, Hp, Wp)`` cropped sigmoid masks at prototype resolution, not binarised.

        Returns:
            ``(N, C - 1)`` predicted IoUs, at least 0 and not bounded by 1.
        """
        x: torch.Tensor = self.maskiou_net(mask)
        return x.amax(dim=(2, 3))
