"""Common parts of the pruning tests: small models of every backbone family, and a timer that needs no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from yolact_calibration.pruning.channel_groups import ChannelGroup
from yolact_calibration.pruning.layer_shape import LayerShape
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.config import YolactConfig
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import fit_widths, make_skeleton
from yolact_export.model.yolact import Yolact
from yolact_runtime.cpu.priors import make_priors

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


def _quarter(width: int) -> int:
    """Return a width that depends on the old width alone, so that layers that fit together still do."""
    return width // 4 if width % 64 == 0 else width


def random_model(config: YolactConfig, seed: int = 0) -> Yolact:
    """Make a model in eval mode that looks trained: effective batch norms, offsets that move, and confident detections.

    The published families get a quarter of their width, but all of their layers.
    """
    model = make_skeleton(config)
    if not isinstance(config.backbone, SmallResNetConfig):
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        narrow = {
            key: shape if key.startswith("maskiou_net.") else (*map(_quarter, shape[:2]), *shape[2:])
            for key, shape in shapes.items()
        }
        fit_widths(model, narrow)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            _fill_norm(module, generator)
        elif hasattr(module, "weight"):
            fan_in = module.weight[0].numel()
            gain = {"conf_layer": 40.0, "conv_offset_mask": 0.5}.get(name.rpartition(".")[2], 2.0)
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (gain / fan_in) ** 0.5
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.1
    return model.eval()


def _fill_norm(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    size = (norm.num_features,)
    norm.weight.data = torch.rand(size, generator=generator) * 0.4 + 0.3
    norm.bias.data = torch.randn(size, generator=generator) * 0.1
    norm.running_mean = torch.randn(size, generator=generator) * 0.1
    norm.running_var = torch.rand(size, generator=generator) + 0.5
    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)


def priors_of(config: YolactConfig) -> torch.Tensor:
    return torch.from_numpy(make_priors(config.prior_spec(), config.input_height, config.input_width))


def random_image(config: YolactConfig, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, config.input_height, config.input_width, generator=generator)


def shuffled(size: int, seed: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def plant_dead_channels(model: nn.Module, groups: Iterable[ChannelGroup], share: float = 0.5) -> dict[str, list[int]]:
    """Let a share of each group's channels write only zeros; return the other channels by group."""
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
    """Timer by which a layer takes a millisecond for a million multiplications, plus a constant hundredth."""

    backend = "multiplications"

    def __init__(self) -> None:
        self.num_measured = 0

    def times_ms(self, layers: Sequence[LayerShape]) -> list[float]:
        self.num_measured += len(layers)
        return [layer.macs / 1e6 + 0.01 for layer in layers]
