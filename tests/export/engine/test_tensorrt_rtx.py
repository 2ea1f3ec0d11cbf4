"""TensorRT-RTX, which needs no GPU to build, accepts our graphs: the parser family of every TensorRT."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import tensorrt_rtx as trt

from yolact_export.graph.export import ExportOptions, export_mask_iou, export_network
from yolact_export.model.yolact import Yolact


class Log(trt.ILogger):
    """Keeps what TensorRT complains about."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.WARNING:
            self.complaints.append(message)


# TensorRT knows one logger per process; a second one is ignored.
LOG = Log()


def build(model: onnx.ModelProto) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Size of the engine, and its outputs."""
    LOG.complaints.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, LOG)
    errors = [] if parser.parse(model.SerializeToString()) else [parser.get_error(i) for i in range(parser.num_errors)]
    assert not errors, [str(error) for error in errors]
    config = builder.create_builder_config()
    # As the product builds: it fails where something in the network would keep it out of a CUDA graph.
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    config.clear_flag(trt.BuilderFlag.TF32)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(-1 in tuple(tensor.shape) for tensor in inputs):
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            profile.set_shape(tensor.name, *((count, *tuple(tensor.shape)[1:]) for count in (1, 2, 4)))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, LOG.complaints
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return engine.nbytes, {tensor.name: tuple(tensor.shape) for tensor in outputs}


@pytest.mark.parametrize("normalise", [False, True], ids=["plain", "normalised in graph"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "name",
    [
        "yolact_resnet50",
        "yolact_plus_resnet50",
        "yolact_darknet53",
        "yolact_edge_mobilenetv2",
        "yolact_lite0",
        "yolact_small",
    ],
)
def test_every_network_builds(narrow_model: Callable[..., Yolact], name: str, dynamic: bool, normalise: bool) -> None:
    model = narrow_model(name, 97, 135)
    options = ExportOptions(dynamic_batch=dynamic, normalise_in_graph=normalise, deform_conv="grid-sample")
    size, outputs = build(export_network(model, options))
    assert size > 0
    batch = -1 if dynamic else 1
    priors = model.config.prior_spec().num_priors
    assert outputs == {
        "box_regression": (batch, priors, 4),
        "class_logit": (batch, priors, 81),
        "mask_coefficient": (batch, priors, outputs["prototype"][1]),
        "prototype": (batch, outputs["prototype"][1], *model.config.prototype_size),
    }


def test_the_mask_iou_network_builds(narrow_model: Callable[..., Yolact]) -> None:
    exported = export_mask_iou(narrow_model("yolact_plus_resnet50", 256, 256))
    assert exported is not None
    assert build(exported)[1] == {"mask_iou": (-1, 80)}
