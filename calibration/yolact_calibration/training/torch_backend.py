"""A PyTorch model as a backend of the runtime: accuracy during training is that of the deployed pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["TorchBackend", "torch_segmenter"]


class TorchBackend:
    """Backend that runs a module on its own device, without owning the module."""

    name = "torch"

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._device = next(module.parameters()).device

    @torch.inference_mode()
    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Compute the outputs by name, in host memory; the only output of a module is ``output``."""
        outputs: Any = self._module(torch.from_numpy(tensor).to(self._device))
        named = {"output": outputs} if isinstance(outputs, torch.Tensor) else outputs._asdict()
        return {name: value.float().cpu().numpy() for name, value in named.items()}

    def close(self) -> None:
        """Do nothing: the caller owns the module."""


def torch_segmenter(
    model: nn.Module, manifest: Manifest, mask_iou: nn.Module | None = None, options: SegmenterOptions | None = None
) -> Segmenter:
    """Create a segmenter around a model in eval mode; it uses the model's weights as they change."""
    rescore = None if mask_iou is None else TorchBackend(mask_iou)
    return Segmenter(manifest, TorchBackend(model), rescore, options or SegmenterOptions())
