from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from yolact_calibration.training.torch_backend import TorchBackend, torch_segmenter
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.config import YolactConfig
from yolact_export.model.yolact import create_model
from yolact_export.training.evaluation import make_segmenter
from yolact_runtime.backends import Backend
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import SegmenterOptions

CONFIG = YolactConfig(
    "tiny",
    SmallResNetConfig(16, (1, 1, 1, 1)),
    num_classes=3,
    num_prototypes=8,
    fpn_channels=16,
    input_height=64,
    input_width=64,
    prior_scales_px=((8.0,), (16.0,), (24.0,), (32.0,), (64.0,)),
)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Doubler(nn.Module):
    def __init__(self, named: bool) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float16))
        self.named = named

    def forward(self, x: torch.Tensor) -> torch.Tensor | Pair:
        return Pair(x * self.factor, x.to(torch.bfloat16)) if self.named else x * self.factor


def test_outputs_come_by_name_in_float32() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 6)
    backend: Backend = TorchBackend(Doubler(named=True))
    outputs = backend.infer(x)
    assert set(outputs) == {"first", "second"}
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(outputs["first"], 2 * x)
    backend.close()


def test_a_single_tensor_is_called_output() -> None:
    x = np.ones((1, 2), np.float32)
    outputs = TorchBackend(Doubler(named=False)).infer(x)
    np.testing.assert_array_equal(outputs["output"], 2 * x)


def test_a_segmenter_follows_the_weights_of_its_model() -> None:
    torch.manual_seed(0)
    model = create_model(CONFIG).eval()
    frame = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    segmenter = make_segmenter(model, ("cat", "dog"))
    head = model.prediction_layers[0].conf_layer
    with torch.no_grad():
        head.bias.zero_()
        head.weight.zero_()
        head.bias[0::3] = 20.0  # everything is background
    assert len(segmenter(frame)) == 0
    with torch.no_grad():
        head.bias[2::3] = 30.0  # everything is a dog
    found = segmenter(frame)
    assert set(found.class_id.tolist()) == {1}
    assert (found.height, found.width) == (48, 80)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_options_reach_the_segmenter() -> None:
    model = create_model(CONFIG).eval()
    manifest = Manifest("tiny", ("cat", "dog"), CONFIG.input_spec(), CONFIG.prior_spec())
    segmenter = torch_segmenter(model, manifest, options=SegmenterOptions(max_instances=2))
    assert len(segmenter(np.zeros((32, 32, 3), np.uint8))) <= 2
    assert segmenter.backend_name == "torch"
