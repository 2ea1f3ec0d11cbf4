"""Export of a model to ONNX. The graph is written from this project's modules, layer by layer, not traced.

Names are therefore those of the modules, shapes are static, batch norms are folded, no Shape, Gather or Where nodes
remain, and little more memory than one copy of the weights is needed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx

from yolact_export.checkpoint.checkpoint import LoadedCheckpoint
from yolact_export.errors import ExportError, UsageError
from yolact_export.graph.backbone_writer import emit_backbone
from yolact_export.graph.builder import GraphBuilder, Tensor
from yolact_export.graph.deformable import DeformConvForm
from yolact_export.graph.heads import emit_head, emit_mask_iou, emit_protonet, emit_pyramid
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.prediction_head import PredictionHead
from yolact_export.model.yolact import Yolact
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.model.network_parts import NORMALISATION
from yolact_runtime.option_numbers import check_most, keep_numbers, shown_number

__all__ = ["DeformConvForm", "ExportOptions", "export_mask_iou", "export_network"]

_LOGGER = logging.getLogger(__name__)

_OPSET = 17
_MAX_BATCH = 1024
_OPSET_DEFORM_CONV = 19


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of a graph.

    Attributes:
        batch: Number of images per run.
        dynamic_batch: If True, any number of images per run; `batch` is then ignored.
        normalise_in_graph: If True, the input is raw BGR, 0..255, and the graph normalises it: one node subtracts the
            means, so that zero padding stays exact; everything else is folded into the first convolution.
        deform_conv: Form of the deformable convolutions of YOLACT++. ``deform-conv`` needs operator set 19 and a
            backend with DeformConv: ONNX Runtime and TensorRT, but not TensorRT-RTX. None is ``deform-conv`` if the
            model has such convolutions.
        bit_depth: Significant bits of images with 16 bits per sample, for the manifest; it does not affect the graph.
        metadata: Entries for ``metadata_props``.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    batch: int = 1
    dynamic_batch: bool = False
    normalise_in_graph: bool = False
    deform_conv: DeformConvForm | str | None = None
    bit_depth: int | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        keep_numbers(self, ("batch", "bit_depth"))
        check_bit_depth(self.bit_depth)
        check_most("batch", self.batch, _MAX_BATCH)
        if self.batch < 1:
            raise ExportError(f"batch must be at least 1, found {shown_number(self.batch)}")
        forms = [form.value for form in DeformConvForm]
        if self.deform_conv is not None and self.deform_conv not in forms:
            raise ExportError(f'deform_conv must be one of {", ".join(forms)}, found "{self.deform_conv}"')

    @property
    def deform_conv_form(self) -> DeformConvForm:
        """Form of the deformable convolutions, if the model has any."""
        return DeformConvForm(self.deform_conv or DeformConvForm.DEFORM_CONV)

    def require_effects(self, model: Yolact) -> None:
        """Refuse options that change nothing in the graph of a model.

        Raises:
            UsageError: A form of deformable convolutions is asked for, and the model has none.
        """
        if self.deform_conv is not None and not _is_deformable(model):
            raise UsageError("deform_conv has no effect: the model has no deformable convolutions; leave it out")


def export_network(model: Yolact | LoadedCheckpoint, options: ExportOptions | None = None) -> onnx.ModelProto:
    """Write the network as ONNX.

    Args:
        model: Model in eval mode, on the CPU. Its config determines the size of the input.
        options: Options of the graph; by default one image, normalised outside of the graph.

    Returns:
        A model with the input ``image (B, 3, H, W)`` and the outputs ``box_regression (B, P, 4)``, ``class_logit (B, P,
        C)``, ``mask_coefficient (B, P, K)`` and ``prototype (B, K, Hp, Wp)``, all float32. It shares no memory with
        `model`; two exports of one model are equal byte for byte.

    Raises:
        ExportError: The model is in training mode, or has a part without an ONNX form.
    """
    network, options = _eval_network(model), options or ExportOptions()
    config = network.config
    form = options.deform_conv_form
    graph = GraphBuilder(
        config.name, batch="batch" if options.dynamic_batch else options.batch, opset=_opset(network, form)
    )
    image = graph.input("image", (3, config.input_height, config.input_width))
    normalisation = config.normalisation if options.normalise_in_graph else None
    x = image if normalisation is None else _subtract_mean(graph, image, normalisation.mean_bgr)
    features = emit_backbone(graph, x, network.backbone, config.backbone, form, normalisation)
    levels = emit_pyramid(graph, features, network.fpn)
    prototype = emit_protonet(graph, levels[0], network.proto_net)
    outputs = emit_head(graph, levels, cast("PredictionHead", network.prediction_layers[0]))
    exported = graph.build([*outputs, prototype], options.metadata)
    _LOGGER.info("%s: %d ONNX nodes, operator set %d", config.name, len(exported.graph.node), graph.opset)
    return exported


def export_mask_iou(model: Yolact | LoadedCheckpoint, options: ExportOptions | None = None) -> onnx.ModelProto | None:
    """Write the mask-IoU network of YOLACT++ as ONNX.

    Returns:
        A model with the input ``mask (N, 1, Hp, Wp)`` and the output ``mask_iou (N, C - 1)``, float32, for any N; None
        if the model does not re-score masks. Of the options only the metadata is used.

    Raises:
        ExportError: The model is in training mode, or its prototypes are too small.
    """
    network, options = _eval_network(model), options or ExportOptions()
    if network.mask_iou is None:
        return None
    graph = GraphBuilder(f"{network.config.name}_mask_iou", batch="instances", opset=_OPSET)
    mask = graph.input("mask", (1, *network.config.prototype_size))
    return graph.build([emit_mask_iou(graph, mask, network.mask_iou)], options.metadata)


def _eval_network(model: Yolact | LoadedCheckpoint) -> Yolact:
    network = model.model if isinstance(model, LoadedCheckpoint) else model
    if network.training:
        raise ExportError(
            "the model is in training mode, where batch norms depend on the batch: call model.eval() first"
        )
    return network


def _is_deformable(network: Yolact) -> bool:
    return any(isinstance(module, ModulatedDeformConv2d) for module in network.backbone.modules())


def _opset(network: Yolact, form: DeformConvForm) -> int:
    if _is_deformable(network) and form is DeformConvForm.DEFORM_CONV:
        return _OPSET_DEFORM_CONV
    return _OPSET


def _subtract_mean(graph: GraphBuilder, image: Tensor, mean_bgr: tuple[float, float, float]) -> Tensor:
    if not any(mean_bgr):
        return image
    mean = graph.constant("normalisation.mean", np.array(mean_bgr, np.float32).reshape(1, 3, 1, 1))
    with graph.part(NORMALISATION):
        return graph.node("Sub", "normalisation", [image, mean], image.shape)
