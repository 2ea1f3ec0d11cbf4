"""The mask-IoU network as it is exported is the one that the GPU's kernels compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from support.mask_iou_models import mask_iou_network_model
from yolact_export.graph.builder import GraphBuilder
from yolact_export.graph.heads import emit_mask_iou
from yolact_export.model.mask_iou import MaskIouNet
from yolact_plugins import reference
from yolact_runtime.model.mask_iou_network import read_mask_iou
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.onnx_graph import read_graph


def test_the_network_as_it_is_exported() -> None:
    torch.manual_seed(0)
    module = MaskIouNet(80)
    graph = GraphBuilder("mask_iou", batch="instances", opset=17)
    model = graph.build([emit_mask_iou(graph, graph.input("mask", (1, 138, 138)), module)], {})
    network = read_mask_iou(ModelFile(Path("mask_iou.fp32.onnx"), model.SerializeToString()))
    assert network.num_classes == 80
    convolutions = [layer for layer in module.maskiou_net if isinstance(layer, torch.nn.Conv2d)]
    for (weight, bias), layer in zip(network.layers, convolutions, strict=True):
        np.testing.assert_array_equal(weight, layer.weight.detach().numpy())
        assert layer.bias is not None
        np.testing.assert_array_equal(bias, layer.bias.detach().numpy())
    masks = np.random.default_rng(0).random((2, 138, 138), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(masks[:, None])).numpy()
    np.testing.assert_allclose(reference.mask_iou(masks, network.layers), expected, rtol=1e-4, atol=1e-6)


def test_the_network_of_the_tests_is_built_alike() -> None:
    graph = GraphBuilder("mask_iou", batch="instances", opset=17)
    model = graph.build([emit_mask_iou(graph, graph.input("mask", (1, 138, 138)), MaskIouNet(80))], {})
    exported, ours = (
        read_graph(ModelFile(Path("mask_iou.onnx"), content))
        for content in (model.SerializeToString(), mask_iou_network_model(80, (138, 138)))
    )
    assert [(node.op_type, node.numbers) for node in exported.nodes] == [
        (node.op_type, node.numbers) for node in ours.nodes
    ]
    assert [array.shape for array in exported.weights.values()] == [array.shape for array in ours.weights.values()]
