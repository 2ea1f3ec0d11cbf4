"""What the pyramid asks of a backbone."""

from __future__ import annotations

import abc

import torch
from torch import nn

__all__ = ["Backbone"]


class Backbone(nn.Module, abc.ABC):
    """Turns an image into feature maps at strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three maps, finest first, as the configuration gives them. A pruned checkpoint
            may narrow the layers of a model that exists; this stays what it was.
    """

    out_channels: tuple[int, int, int]

    @abc.abstractmethod
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features C3, C4 and C5 of a normalised ``image (B, 3, H, W)``; every stride rounds up."""
