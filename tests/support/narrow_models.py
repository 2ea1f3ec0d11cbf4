"""Checkpoints of known configurations, pruned to a sixteenth of their width: they run in milliseconds."""

from __future__ import annotations

import functools

import torch

from support.goldens import filled_state_dict
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import make_skeleton

__all__ = ["narrow_state_dict"]


def _narrow(width: int) -> int:
    """A function of the width alone, so that layers that fit together still do."""
    return width // 16 if width % 64 == 0 else width


@functools.cache
def narrow_state_dict(name: str) -> dict[str, torch.Tensor]:
    """The state dict; callers copy what they change."""
    config = CONFIGS[name]
    shapes = {
        key: tuple(value.shape)
        if key.startswith("maskiou_net.") or not value.ndim
        else (*map(_narrow, value.shape[:2]), *value.shape[2:])
        for key, value in make_skeleton(config).state_dict().items()
    }
    return filled_state_dict(shapes, config.num_classes)
