"""What the pruning tests share: small models of every backbone family, and a timer that needs no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from yolact_calibration.channel_groups import ChannelGroup
from yolact_calibration.layer_shape import LayerShape
from yolact_export.model.config import CONFIGS, SmallResNetConfig, YolactConfig
from yolact_export.model.yolact import Yolact, create_model
from yolact_runtime.priors import make_priors

SMALL = YolactConfig(
    "yolact_small",
    SmallResNetConfig(16, (2, 2, 2, 1)),
    num_classes=7,
    num_prototypes=16,
    fpn_channels=64,
    input_height=64,
    input_width=64,
    prior_scales_px=((16.0,), (32.0,), (64.0,), (110.0,), (180.0,)),
    square_priors=False,
)
_OTHERS = (
    "yolact_lite0",
    "yolact_edge_mobilenetv2",
    "yolact_resnet50",
    "yolact_plus_resnet50",
    "yolact_darknet53",
)
FAMILIES = {
    "yolact_small": SMALL,
    **{name: dataclasses.replace(CONFIGS[name], input_height=64, input_width=64) for name in _OTHERS},
}


def random_model(config: YolactConfig, seed: int = 0) -> Yolact:
    """In eval mode, with batch norms as a training leaves them and offsets that move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            size = (module.num_features,)
            module.weight.data = torch.rand(size, generator=generator) * 0.4 + 0.3
            module.bias.data = torch.randn(size, generator=generator) * 0.1
            module.running_mean = torch.randn(size, generator=generator) * 0.1
            module.running_var = torch.rand(size, generator=generator) + 0.5
        elif name.endswith("conv_offset_mask"):
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * 0.02
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.1
    return model.eval()


def priors_of(config: YolactConfig) -> torch.Tensor:
    return torch.from_numpy(make_priors(config.prior_spec(), config.input_height, config.input_width))


def random_image(config: YolactConfig, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, config.input_height, config.input_width, generator=generator)


def shuffled(size: int, seed: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def plant_dead_channels(model: nn.Module, groups: Iterable[ChannelGroup], share: float = 0.5) -> dict[str, list[int]]:
    """Make a share of each group's channels write nothing but zeros; returns the others, by group."""
    alive = {}
    for number, group in enumerate(groups):
        order = shuffled(group.width, number)
        dead = order[: int(group.width * share)]
        alive[group.name] = sorted(order[len(dead) :].tolist())
        for name in (*group.producers, *group.norms, *group.depthwise):
            for parameter in model.get_submodule(name).parameters(recurse=False):
                parameter.data[dead] = 0.0
    return alive


class MacTimer:
    """A layer takes a millisecond for a million multiplications, and a hundredth for being there."""

    backend = "multiplications"

    def __init__(self) -> None:
        self.num_measured = 0

    def times_ms(self, layers: Sequence[LayerShape]) -> list[float]:
        self.num_measured += len(layers)
        return [layer.macs / 1e6 + 0.01 for layer in layers]
