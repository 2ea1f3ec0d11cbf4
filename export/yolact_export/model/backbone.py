"""Base classes of backbones and of their families.

A family is one module of :mod:`yolact_export.model.backbones` and one line of :mod:`yolact_export.model.registry`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import nn

from yolact_export.errors import ShapeError
from yolact_export.model.config import BackboneConfig, YolactConfig
from yolact_export.model.layer_writer import LayerWriter, Tensor

__all__ = [
    "Backbone",
    "BackboneFamily",
    "Features",
    "ImageNetWeights",
    "Shapes",
    "convolution_width",
    "count_blocks",
]

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every tensor of a backbone by its state-dict key, which begins inside the backbone: ``conv1.weight``."""
Features = tuple[Tensor, Tensor, Tensor]
"""C3, C4 and C5 in a graph."""


class Backbone(nn.Module, abc.ABC):
    """Base class of networks that turn an image into feature maps at strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three maps, finest first, as the configuration gives them. A pruned checkpoint
            may narrow the layers of a model that exists; this stays what it was.
    """

    out_channels: tuple[int, int, int]

    @abc.abstractmethod
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute features C3, C4 and C5 of a normalised ``image (B, 3, H, W)``; every stride rounds up."""


@dataclasses.dataclass(frozen=True)
class ImageNetWeights:
    """A file of ImageNet weights for a family, as another project lays it out.

    Attributes:
        origin: Name of the network that the file is of, with its article: ``"a torchvision ResNet"``.
        sign: A key that every such file has, and no YOLACT checkpoint.
        classifier: Prefixes of the keys that are left out.
        rename: Function that turns a key of the file into one of the backbone.
        package: Name of a Python package that brings the file; None if there is no such package.
    """

    origin: str
    sign: str
    classifier: tuple[str, ...]
    rename: Callable[[str], str]
    package: str | None = None


_Config = TypeVar("_Config", bound=BackboneConfig)
_Module = TypeVar("_Module", bound=Backbone)


class BackboneFamily(abc.ABC, Generic[_Config, _Module]):
    """Everything that one family of backbones knows of itself.

    Attributes:
        name: Name of the family, for messages: ``"MobileNetV2"``.
        config_type: Type of its configurations; no two families share one.
        module_type: Type of its networks; no two families share one.
        configs: The configurations of whole models with such a backbone, the most usual one first.
        imagenet: The ImageNet weights that a training can start from; None if no file of them can be read.
    """

    name: str
    config_type: type[_Config]
    module_type: type[_Module]
    configs: tuple[YolactConfig, ...]
    imagenet: ImageNetWeights | None = None

    @abc.abstractmethod
    def build(self, config: _Config) -> _Module:
        """Build a backbone with fresh random weights."""

    @abc.abstractmethod
    def infer(self, shapes: Shapes) -> _Config | None:
        """Infer the configuration from the tensors of a checkpoint; None if they are of another family.

        Channels may be fewer than usual: the checkpoint may be pruned.

        Raises:
            ShapeError: The tensors are of this family, and one has a shape that it cannot have.
        """

    @abc.abstractmethod
    def emit(self, graph: LayerWriter, image: Tensor, backbone: _Module) -> Features:
        """Write the layers of a backbone in eval mode, and return its outputs for ``image (3, H, W)``."""

    @abc.abstractmethod
    def describe(self, config: _Config) -> str:
        """Return the name of a network of the family to print: ``"ResNet-50"``."""

    def is_same_network(self, expected: _Config, found: _Config) -> bool:
        """Tell whether tensors that say `found` may belong to a model that is called after `expected`."""
        return expected == found

    def likely_config(self, config: _Config, priors_per_cell: int) -> YolactConfig:  # noqa: ARG002
        """Return the configuration of `configs` that a model with this backbone most likely has."""
        return self.configs[0]


def convolution_width(shapes: Shapes, key: str) -> int:
    """Return the output channels of a convolution's weight.

    Raises:
        ShapeError: The tensor is no such weight.
    """
    shape = shapes[key]
    if len(shape) != 4 or 0 in shape:
        raise ShapeError(f"{key} has the shape {shape}; a convolution's weight has four dimensions, none empty")
    return shape[0]


def count_blocks(shapes: Shapes, num_stages: int) -> tuple[int, ...]:
    """Return the number of blocks of each stage, of keys that begin ``layers.{stage}.{block}.``."""
    counts = [0] * num_stages
    for key in shapes:
        parts = key.split(".")
        if parts[0] == "layers" and "".join(parts[1:3]).isdecimal() and len(parts) > 3:
            stage = int(parts[1])
            if stage < num_stages:
                counts[stage] = max(counts[stage], int(parts[2]) + 1)
    return tuple(counts)
