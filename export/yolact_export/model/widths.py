"""Channel widths: fit a model's layers to the tensors of a checkpoint, which may be pruned.

The layers are fitted on torch's meta device, where they have shapes and no storage, before the tensors are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from yolact_export.errors import ShapeError
from yolact_export.model.config import YolactConfig
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.yolact import Yolact

__all__ = ["check_flow", "fit_widths", "make_skeleton"]

# Side of the test image in pixels, for which P7 is a single one.
_PROBE_SIZE = 64
Shapes = Mapping[str, tuple[int, ...]]
_Convolution = nn.Conv2d | ModulatedDeformConv2d


def make_skeleton(config: YolactConfig) -> Yolact:
    """Create a model in eval mode whose tensors have shapes but no storage."""
    with torch.device("meta"):
        return Yolact(config).eval()


def fit_widths(skeleton: Yolact, shapes: Shapes) -> list[str]:
    """Give every layer the width of its tensors.

    Only channels change. A layer whose tensors are missing, or have another rank or kernel, is not changed: comparing
    the skeleton's shapes with the checkpoint's then reveals the difference.
    the skeleton's shapes with the checkpoint's then shows the difference.

    Args:
        skeleton: Model to modify; its tensors stay on the meta device.
        shapes: Shape of every tensor of the checkpoint, by its state-dict key.

    Returns:
        The names of the layers whose width changed.
    """
    changed = []
    for name, module in skeleton.named_modules():
        shape = shapes.get(f"{name}.weight", ())
        if isinstance(module, nn.Conv2d | ModulatedDeformConv2d):
            before = tuple(module.weight.shape)
            if shape != before and len(shape) == len(before) and shape[2:] == before[2:]:
                _resize_convolution(module, shape)
                changed.append(name)
        elif isinstance(module, nn.BatchNorm2d) and len(shape) == 1 and shape[0] != module.num_features:
            _resize_batch_norm(module, shape[0])
            changed.append(name)
    return changed


def _resize_convolution(module: _Convolution, shape: tuple[int, ...]) -> None:
    module.out_channels, module.in_channels = shape[:2]
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        # Depthwise: one group per channel, however many remain.
        module.groups = module.in_channels = shape[0]
    module.weight = _empty(*shape)
    if module.bias is not None:
        module.bias = _empty(shape[0])


def _resize_batch_norm(module: nn.BatchNorm2d, width: int) -> None:
    module.num_features = width
    module.weight, module.bias = _empty(width), _empty(width)
    module.running_mean, module.running_var = _empty(width).data, _empty(width).data


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device="meta"))


def check_flow(model: Yolact) -> None:
    """Run a tiny image through the whole network to detect widths that do not fit together.

    This takes a loaded model, not its skeleton: kernels on the meta device cost a second and 80 MB to import.

    Raises:
        ShapeError: A layer receives another number of channels than it expects; the message names it.
    """
    image = torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE, device=model.semantic_seg_conv.weight.device)
    with _watched_channels(model), torch.no_grad():
        try:
            levels = model.features(image)
            model.predict(levels)
            model.semantic_logit(levels)
        except RuntimeError as error:
            raise ShapeError(f"channel widths do not fit together: {error}") from error


@contextmanager
def _watched_channels(model: Yolact) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(partial(_check_channels, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | ModulatedDeformConv2d | nn.BatchNorm2d)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_channels(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    takes = module.num_features if isinstance(module, nn.BatchNorm2d) else module.in_channels
    if inputs[0].shape[1] != takes:
        raise ShapeError(f"{name} expects {takes} channels, but receives {inputs[0].shape[1]}")
