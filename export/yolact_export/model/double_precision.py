"""Float64 computation of a model, to measure the effect of rounding in float32."""

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

# Eight units in the last place of float32: the error of sums of a few hundred products.
_DISTURBANCE = 2.0**-21


@dataclasses.dataclass(frozen=True)
class DoublePrecision:
    """Results of a model in float64.

    Attributes:
        outputs: Outputs by name, float64.
        disturbed: Outputs with every layer's result disturbed by the possible error of float32 there.
        largest: Largest absolute value in any layer's result; infinite or NaN if it exceeds float64, too.
        layer: Name of the layer with that value.
    """

    outputs: dict[str, npt.NDArray[np.float64]]
    disturbed: dict[str, npt.NDArray[np.float64]]
    largest: float
    layer: str


@torch.inference_mode()
def run_in_double_precision(model: Yolact, image: npt.NDArray[np.float32]) -> DoublePrecision:
    """Run a model in float64, twice; the model is converted in place.

    The error of a single float32 computation depends on its order of additions, and may be small by luck. The
    disturbance represents every order.

    Args:
        model: Model in eval mode, on the CPU.
        image: ``(1, 3, H, W)`` float32 preprocessed image.
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
    # NaN compares false with everything, so count it as more than any number.
    layer = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf))
    return DoublePrecision(outputs, disturbed, largest[layer], layer)


def _run(
    model: Yolact, tensor: torch.Tensor, hook: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the outputs; `hook` receives every layer's result, and may replace it."""

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
