"""ImageNet weights for the backbone of a new training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from yolact_export.checkpoint.file import read_checkpoint_file
from yolact_export.checkpoint.keys import list_some
from yolact_export.errors import CheckpointError
from yolact_export.model.backbone import Backbone
from yolact_export.model.registry import families, family_of_module

__all__ = ["load_imagenet"]


def load_imagenet(backbone: Backbone, path: str | os.PathLike[str]) -> str:
    """Load ImageNet weights into a backbone, without the classifier in the file.

    Args:
        backbone: Backbone to modify, of a family with a known layout of ImageNet files.
        path: Path of the file, in that layout.

    Returns:
        The SHA-256 of the file, hexadecimal.

    Raises:
        CheckpointError: The file cannot be read, has other weights, or the backbone is of another family.
    """
    file = read_checkpoint_file(Path(path))
    family = family_of_module(backbone)
    layout = family.imagenet
    if layout is None:
        others = " and ".join(other.name for other in families() if other.imagenet is not None)
        raise CheckpointError(
            f"{path}: ImageNet weights can be read for {others}, not for {family.name}; start from a checkpoint of the "
            f"whole model"
        )
    kept = {key: value for key, value in file.tensors.items() if not key.startswith(layout.classifier)}
    state = {layout.rename(key): value for key, value in kept.items()}
    # A deformable convolution has offsets that classifiers do not have.
    own = backbone.state_dict()
    state |= {key: value for key, value in own.items() if "conv_offset_mask" in key or _is_deformable_bias(key, own)}
    _check(state, own, f"{path}: not the ImageNet weights of this {type(backbone).__name__}")
    backbone.load_state_dict(state, strict=True)
    return file.sha256


def _check(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], complaint: str) -> None:
    # Files from before PyTorch 0.4.1 have no counters, but PyTorch adds them.
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
