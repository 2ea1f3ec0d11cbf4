"""The interface through which a family of backbones writes its layers; :mod:`yolact_export.graph` does it in ONNX."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn

from yolact_export.model.deformable import ModulatedDeformConv2d

__all__ = ["Convolution", "LayerWriter", "Tensor"]

Convolution = nn.Conv2d | ModulatedDeformConv2d


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A float32 tensor of a graph.

    Attributes:
        name: Name of the tensor, unique in the graph.
        shape: Shape without the batch dimension, which every tensor has in front: ``(C, H, W)`` for a feature map.
    """

    name: str
    shape: tuple[int, ...]


class LayerWriter(Protocol):
    """A writer of the layers of a backbone, in the order in which they are computed.

    Every `path` is that of a module inside the backbone, or a free name of the same kind where no module computes the
    layer. A path is used once.
    """

    def part(self, name: str) -> AbstractContextManager[None]:
        """Name the part of the model that the layers written inside the context belong to.

        Outside of any such context the part of a layer is named by its stride: ``"backbone /16"``.
        """

    def convolution(
        self, x: Tensor, path: str, module: Convolution, batch_norm: nn.BatchNorm2d | None = None
    ) -> Tensor:
        """Write a convolution, deformable or not, with the batch norm after it folded into its weights.

        Where the network takes raw pixels, the convolution that reads the image normalises them too.
        """

    def relu(self, x: Tensor, path: str) -> Tensor:
        """Write ``max(x, 0)``."""

    def relu6(self, x: Tensor, path: str) -> Tensor:
        """Write ``x`` clipped to 0..6."""

    def leaky_relu(self, x: Tensor, path: str, slope: float) -> Tensor:
        """Write ``x`` where it is positive, ``slope * x`` elsewhere."""

    def add(self, x: Tensor, y: Tensor, path: str) -> Tensor:
        """Write the sum of two tensors of one shape."""

    def max_pool(self, x: Tensor, path: str) -> Tensor:
        """Write the 3x3 stride-2 padding-1 max pool of a ResNet's stem."""
