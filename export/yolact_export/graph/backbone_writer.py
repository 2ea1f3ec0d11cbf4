"""The layers of a backbone as ONNX nodes, for :mod:`yolact_export.model.backbones`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from yolact_export.errors import ExportError
from yolact_export.graph import layers
from yolact_export.graph.builder import GraphBuilder, Tensor
from yolact_export.graph.deformable import DeformConvForm, deformable_convolution
from yolact_export.model.backbone import Backbone, Features
from yolact_export.model.config import BackboneConfig, Normalisation
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.layer_writer import Convolution
from yolact_export.model.registry import family_of
from yolact_runtime.model.network_parts import stage_at, stride_of

__all__ = ["emit_backbone"]


def emit_backbone(
    graph: GraphBuilder,
    image: Tensor,
    backbone: Backbone,
    config: BackboneConfig,
    form: DeformConvForm,
    normalisation: Normalisation | None,
) -> Features:
    """Write a backbone, and return C3, C4 and C5 of an image.

    Args:
        graph: Graph that is extended.
        image: Input tensor, ``(3, H, W)``.
        backbone: Backbone in eval mode.
        config: Structure that the backbone was built from; tells its family.
        form: Form in which deformable convolutions are written.
        normalisation: Normalisation that the convolution which reads the image has to do; None for an image that is
            normalised.

    Raises:
        ConfigError: The configuration is of no family of backbones.
        ExportError: The image is not normalised, and is read by other layers than one convolution.
    """
    writer = _BackboneWriter(graph, image, form, normalisation)
    with graph.part(lambda shape: stage_at(stride_of(image.shape[1], shape[1]))):
        return family_of(config).emit(writer, image, backbone)


class _BackboneWriter:
    """A :class:`~yolact_export.model.layer_writer.LayerWriter` of ONNX nodes."""

    def __init__(
        self, graph: GraphBuilder, image: Tensor, form: DeformConvForm, normalisation: Normalisation | None
    ) -> None:
        self._graph = graph
        self._image = image
        self._form = form
        self._normalisation = normalisation

    def part(self, name: str) -> AbstractContextManager[None]:
        return self._graph.part(name)

    def convolution(
        self, x: Tensor, path: str, module: Convolution, batch_norm: nn.BatchNorm2d | None = None
    ) -> Tensor:
        if isinstance(module, ModulatedDeformConv2d):
            assert batch_norm is not None
            return deformable_convolution(self._graph, self._read(x), _name(path), module, batch_norm, self._form)
        normalisation = self._normalisation if x == self._image else None
        return layers.convolution(self._graph, x, _name(path), module, batch_norm, normalisation=normalisation)

    def relu(self, x: Tensor, path: str) -> Tensor:
        return layers.relu(self._graph, self._read(x), _name(path))

    def relu6(self, x: Tensor, path: str) -> Tensor:
        return layers.relu6(self._graph, self._read(x), _name(path))

    def leaky_relu(self, x: Tensor, path: str, slope: float) -> Tensor:
        return layers.leaky_relu(self._graph, self._read(x), _name(path), slope)

    def add(self, x: Tensor, y: Tensor, path: str) -> Tensor:
        return layers.add(self._graph, self._read(x), self._read(y), _name(path))

    def max_pool(self, x: Tensor, path: str) -> Tensor:
        return layers.max_pool(self._graph, self._read(x), _name(path))

    def _read(self, x: Tensor) -> Tensor:
        """Refuse what would read raw pixels as if they were normalised: only a convolution can normalise them."""
        if x == self._image and self._normalisation is not None:
            raise ExportError(
                "this backbone does not begin with a plain convolution, so the graph cannot normalise the image: "
                "export without --normalise-in-graph"
            )
        return x


def _name(path: str) -> str:
    return f"backbone.{path}"
