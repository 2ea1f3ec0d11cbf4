"""Removal of channels: a model with narrower layers, under the same state-dict keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from yolact_calibration.errors import PruningError
from yolact_calibration.pruning.channel_groups import ChannelGroup

__all__ = ["choose_kept", "remove_channels"]


def choose_kept(
    groups: Iterable[ChannelGroup], importance: Mapping[str, torch.Tensor], widths: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """Choose the most important channels of each group.

    Args:
        groups: Groups of the model.
        importance: ``(width,)`` importance of the channels, by group name.
        widths: Number of channels to keep, by group name.

    Returns:
        ``(widths[name],)`` int64 indices on the CPU, ascending, by group name. Among equals the earlier channel stays.
    """
    kept = {}
    for group in groups:
        order = importance[group.name].cpu().argsort(descending=True, stable=True)
        kept[group.name] = order[: widths[group.name]].sort().values
    return kept


def remove_channels(model: nn.Module, groups: Iterable[ChannelGroup], kept: Mapping[str, torch.Tensor]) -> None:
    """Remove all channels except the given ones.

    Args:
        model: Model to modify; its layers get new, smaller parameters. Optimizers created before must be created again.
        groups: Groups found in this model.
        kept: Indices of the channels that stay, by group name: ascending, without duplicates, at least one. Groups
            without an entry stay whole.

    Raises:
        PruningError: Indices are invalid; the model is not modified.
    """
    chosen = [(group, kept[group.name]) for group in groups if group.name in kept]
    for group, keep in chosen:
        _check_kept(group, keep)
    for group, keep in chosen:
        for name in group.producers:
            _keep_outputs(model.get_submodule(name), keep)
        for name in group.norms:
            _keep_normalised(model.get_submodule(name), keep)
        for name in group.depthwise:
            module: Any = model.get_submodule(name)
            _keep_outputs(module, keep)
            module.groups = module.in_channels = len(keep)
        for name in group.consumers:
            _keep_inputs(model.get_submodule(name), keep)


def _check_kept(group: ChannelGroup, keep: torch.Tensor) -> None:
    indices = keep.tolist()
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= group.width:
        raise PruningError(
            f"{group.name}: the channels to keep are ascending numbers from 0 to {group.width - 1}, at least one, each "
            f"once; found {indices[:8]}"
        )


def _keep_outputs(module: Any, keep: torch.Tensor) -> None:
    module.weight = _select(module.weight, 0, keep)
    if module.bias is not None:
        module.bias = _select(module.bias, 0, keep)
    module.out_channels = len(keep)


def _keep_inputs(module: Any, keep: torch.Tensor) -> None:
    module.weight = _select(module.weight, 1, keep)
    module.in_channels = len(keep)


def _keep_normalised(module: Any, keep: torch.Tensor) -> None:
    for name in ("weight", "bias"):
        setattr(module, name, _select(getattr(module, name), 0, keep))
    for name in ("running_mean", "running_var"):
        buffer = getattr(module, name)
        setattr(module, name, buffer.index_select(0, keep.to(buffer.device)))
    module.num_features = len(keep)


def _select(parameter: nn.Parameter, dim: int, keep: torch.Tensor) -> nn.Parameter:
    """Copy the selected part of a parameter, so that the memory of the whole one is freed."""
    selected = parameter.detach().index_select(dim, keep.to(parameter.device))
    return nn.Parameter(selected, requires_grad=parameter.requires_grad)
