"""The prototype network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Protonet"]


class Protonet(nn.Sequential):
    """Network that computes K prototypes at twice the size of P3. The indices of the layers are the published ones."""

    def __init__(self, channels: int, num_prototypes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Identity(),  # upstream's ReLU of values that are not negative; keeps the indices
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, num_prototypes, 1),
        )

    def forward(self, p3: torch.Tensor) -> torch.Tensor:
        """Compute prototypes ``(B, K, Hp, Wp)`` after their ReLU."""
        return functional.relu(super().forward(p3))  # type: ignore[no-untyped-call] # torch leaves Sequential.forward untyped
