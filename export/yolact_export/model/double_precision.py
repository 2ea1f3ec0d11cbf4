"""A model computed in float64, to tell what rounding does to it in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from yolact_export.model.yolact import Yolact

__all__ = ["DoublePrecision", "run_in_double_precision"]

# Eight units in the last place of float32: what sums of some hundred products are off by.
_DISTURBANCE = 2.0**-21


@dataclasses.dataclass(frozen=True)
class DoublePrecision:
    """What a model gives in float64.

    Attributes:
        outputs: By name, float64.
        disturbed: The same, with what every layer gives disturbed by as little as float32 may be off there.
        largest: Largest absolute value that any layer gives; infinite or NaN where float64 does not hold it either.
        layer: The layer that gives it.
    """

    outputs: dict[str, npt.NDArray[np.float64]]
    disturbed: dict[str, npt.NDArray[np.float64]]
    largest: float
    layer: str


@torch.inference_mode()
def run_in_double_precision(model: Yolact, image: npt.NDArray[np.float32]) -> DoublePrecision:
    """Run a model in float64, twice; the model is converted, and stays so.

    How far one float32 computation is from float64 depends on its order of additions, and may be little by luck. The
    disturbance stands for every order.

    Args:
        model: In eval mode, on the CPU.
        image: ``(1, 3, H, W)`` float32, preprocessed.
    """
    largest: dict[str, float] = {}

    generator = torch.Generator().manual_seed(0)

    def note(name: str, output: torch.Tensor) -> None:
        largest[name] = float(output.abs().max())

    def disturb(_name: str, output: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(output.shape, generator=generator, dtype=output.dtype)
        return output + (2 * noise - 1) * _DISTURBANCE * output.abs()

    tensor = torch.from_numpy(image).double()
    model.double()
    outputs, disturbed = _run(model, tensor, note), _run(model, tensor, disturb)
    # NaN compares false with everything: it counts as more than any number.
    layer = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf))
    return DoublePrecision(outputs, disturbed, largest[layer], layer)


def _run(
    model: Yolact, tensor: torch.Tensor, hook: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> dict[str, npt.NDArray[np.float64]]:
    """The outputs; `hook` sees what every layer gives, and may replace it."""

    def hooked(name: str) -> Any:
        def call(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            return hook(name, output) if isinstance(output, torch.Tensor) and output.numel() else None

        return call

    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(hooked(name)) for name, layer in layers]
    try:
        return {name: value.numpy() for name, value in model(tensor)._asdict().items()}
    finally:
        for handle in handles:
            handle.remove()
