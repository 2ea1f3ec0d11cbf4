"""A model computed in float64, to tell what rounding does to it in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from yolact_export.model.yolact import Yolact

__all__ = ["DoublePrecision", "run_in_double_precision"]


@dataclasses.dataclass(frozen=True)
class DoublePrecision:
    """What a model gives in float64.

    Attributes:
        outputs: By name, float64.
        largest: Largest absolute value that any layer gives; infinite or NaN where float64 does not hold it either.
        layer: The layer that gives it.
    """

    outputs: dict[str, npt.NDArray[np.float64]]
    largest: float
    layer: str


@torch.inference_mode()
def run_in_double_precision(model: Yolact, image: npt.NDArray[np.float32]) -> DoublePrecision:
    """Run a model in float64; the model is converted, and stays so.

    Args:
        model: In eval mode, on the CPU.
        image: ``(1, 3, H, W)`` float32, preprocessed.
    """
    largest: dict[str, float] = {}

    def watch(name: str, layer: nn.Module) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.numel():
                largest[name] = float(output.abs().max())

        return layer.register_forward_hook(note)

    model.double()
    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    hooks = [watch(name, layer) for name, layer in layers]
    try:
        outputs = model(torch.from_numpy(image).double())
    finally:
        for hook in hooks:
            hook.remove()
    # NaN compares false with everything: it counts as more than any number.
    layer = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf))
    return DoublePrecision({name: value.numpy() for name, value in outputs._asdict().items()}, largest[layer], layer)
