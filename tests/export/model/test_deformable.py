import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from support.properties import examples
from yolact_export.model.deformable import ModulatedDeformConv2d


def naive(layer, x):
    """Section 4.2 of the specification, tap by tap, in float64."""
    with torch.no_grad():
        both = layer.conv_offset_mask(x)[0].double().numpy()
    image, weight = x[0].double().numpy(), layer.weight.detach().double().numpy()
    _, height, width = image.shape
    _, out_height, out_width = both.shape
    output = np.tile(layer.bias.detach().double().numpy()[:, None, None], (1, out_height, out_width))
    for row in range(out_height):
        for column in range(out_width):
            for tap in range(9):
                dy, dx = both[2 * tap, row, column], both[2 * tap + 1, row, column]
                mask = 1 / (1 + math.exp(-both[18 + tap, row, column]))
                y = row * layer.stride - 1 + tap // 3 + dy
                x_ = column * layer.stride - 1 + tap % 3 + dx
                sample = np.zeros(image.shape[0])
                for yy in (math.floor(y), math.floor(y) + 1):
                    for xx in (math.floor(x_), math.floor(x_) + 1):
                        if 0 <= yy < height and 0 <= xx < width:
                            sample += (1 - abs(y - yy)) * (1 - abs(x_ - xx)) * image[:, yy, xx]
                output[:, row, column] += weight[:, :, tap // 3, tap % 3] @ (mask * sample)
    return output


def random_layer(stride, seed, in_channels=3, out_channels=2):
    generator = torch.Generator().manual_seed(seed)
    layer = ModulatedDeformConv2d(in_channels, out_channels, stride)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    layer.conv_offset_mask.weight.data *= 2
    return layer.eval()


@examples(25)
@given(height=st.integers(1, 7), width=st.integers(1, 7), stride=st.sampled_from([1, 2]), seed=st.integers(0, 999))
def test_equals_the_definition(height, width, stride, seed):
    layer = random_layer(stride, seed)
    x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        actual = layer(x)[0].numpy()
    np.testing.assert_allclose(actual, naive(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_a_convolution_at_half_gain(stride):
    layer = random_layer(stride, 1)
    for parameter in layer.conv_offset_mask.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 3, 9, 6)
    expected = 0.5 * functional.conv2d(x, layer.weight, stride=stride, padding=1) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)


def test_offsets_are_interleaved_y_before_x():
    layer = ModulatedDeformConv2d(1, 1).eval()
    torch.nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 1, 1] = 2.0
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    # The centre is tap 4: its dy is channel 8 and its dx channel 9.
    layer.conv_offset_mask.bias.data[8] = 1.0
    assert layer(x)[0, 0, 2, 2] == x[0, 0, 3, 2]
    layer.conv_offset_mask.bias.data[8:10] = torch.tensor([0.0, 1.0])
    assert layer(x)[0, 0, 2, 2] == x[0, 0, 2, 3]


def test_taps_outside_the_map_read_zero():
    layer = ModulatedDeformConv2d(1, 1).eval()
    torch.nn.init.ones_(layer.weight)
    layer.conv_offset_mask.bias.data[:18] = 100.0
    assert layer(torch.ones(1, 1, 4, 4)).abs().max() == 0.0


def test_gradients_reach_weights_offsets_masks_and_input():
    layer = random_layer(1, 3).double()
    x = torch.randn(1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-4, rtol=1e-3)
    layer(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
