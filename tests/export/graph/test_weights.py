import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from yolact_export.errors import ExportError
from yolact_export.graph.builder import GraphBuilder
from yolact_export.graph.layers import resize
from yolact_export.graph.weights import folded_weights
from yolact_export.model.config import Normalisation
from yolact_export.model.deformable import ModulatedDeformConv2d


def random_batch_norm(channels):
    norm = nn.BatchNorm2d(channels).eval()
    norm.weight.data.uniform_(-1, 1)
    norm.bias.data.uniform_(-1, 1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.1, 2)
    return norm


@pytest.mark.parametrize("has_bias", [True, False])
def test_batch_norm_folds_into_a_convolution(has_bias):
    conv, norm = nn.Conv2d(3, 5, 3, bias=has_bias), random_batch_norm(5)
    x = torch.rand(1, 3, 6, 6)
    weight, bias = folded_weights(conv, norm)
    with torch.no_grad():
        expected = norm(conv(x))
    actual = functional.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_bias_of_a_deformable_convolution_survives_the_fold():
    conv, norm = ModulatedDeformConv2d(2, 4).eval(), random_batch_norm(4)
    conv.bias.data.uniform_(1, 2)
    _, bias = folded_weights(conv, norm)
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    expected = (conv.bias.detach() - norm.running_mean) * gain + norm.bias.detach()
    np.testing.assert_allclose(bias, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_folding_is_in_double_precision():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1).eval()
    conv.weight.data.fill_(1.0)
    norm.running_var.fill_(3.0)
    norm.running_mean.fill_(1e8)
    weight, bias = folded_weights(conv, norm)
    assert weight[0, 0, 0, 0] == np.float32(1 / np.sqrt(3 + 1e-5))
    assert bias[0] == np.float32(-1e8 / np.sqrt(3 + 1e-5))


def test_convolution_without_bias_or_norm_keeps_none():
    weight, bias = folded_weights(nn.Conv2d(1, 1, 1, bias=False))
    assert weight.dtype == np.float32
    assert bias is None


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_normalisation_folds_into_the_first_convolution(order):
    conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    norm = Normalisation((10.0, 20.0, 30.0), (2.0, 3.0, 5.0), order)
    centred = torch.rand(1, 3, 4, 4) - torch.rand(1, 3, 1, 1)
    normalised = centred / torch.tensor(norm.std_bgr).view(1, 3, 1, 1)
    weight, _ = folded_weights(conv, None, norm)
    with torch.no_grad():
        expected = conv(normalised.flip(1) if order == "RGB" else normalised)
    actual = functional.conv2d(centred, torch.from_numpy(weight), padding=1)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_name_that_is_taken_is_refused():
    graph = GraphBuilder("test", batch=1, opset=17)
    x = graph.input("x", (1, 2, 2))
    with graph.part("stem"):
        graph.node("Relu", "backbone.relu", [x], x.shape)
        with pytest.raises(ExportError, match=r"backbone\.relu"):
            graph.node("Relu", "backbone.relu", [x], x.shape)


def test_a_node_of_no_part_is_refused():
    graph = GraphBuilder("test", batch=1, opset=17)
    x = graph.input("x", (1, 2, 2))
    with graph.part("stem"):
        pass
    with pytest.raises(ExportError, match=r'node "backbone\.relu" of graph "test" belongs to no part of the model'):
        graph.node("Relu", "backbone.relu", [x], x.shape)


def test_scales_of_a_dynamic_resize_never_round_below_the_size():
    for old in range(1, 600):
        graph = GraphBuilder("test", batch="batch", opset=17)
        x = graph.input("x", (1, old, old))
        with graph.part("protonet"):
            model = graph.build([resize(graph, x, (2 * old - 1 or 2, 2 * old), "up")], {})
        scales = np.frombuffer(model.graph.initializer[0].raw_data, np.float32)
        for scale, new in zip(scales[2:], (2 * old - 1 or 2, 2 * old), strict=True):
            assert int(float(scale) * old) == new
            assert int(scale * np.float32(old)) == new
            assert scale == pytest.approx(new / old, rel=2e-7, abs=0)
