"""Settings of networks in other precisions than float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from yolact_calibration.errors import UsageError
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_runtime.option_numbers import MAX_COUNT, keep_between

__all__ = ["PrecisionOptions"]

_TARGETS = ("auto", "cpu", "tensorrt", "rtx")


@dataclass(frozen=True)
class PrecisionOptions:
    """Networks in other precisions than float32, and the accuracy that they may cost.

    Attributes:
        int8: If True, add INT8 networks.
        float16: If True, add a float16 network, for engines.
        target: Destination of the networks: ``"cpu"`` (ONNX Runtime), ``"tensorrt"`` and ``"rtx"`` (engines), or
            ``"auto"`` for all.
        max_drop: Points of average precision that a network may lose; more, and it is rejected. None is 0.5 with
            labels, and 8 points of agreement without; infinity rejects nothing.
        method: Choice of the ranges of INT8: ``"mse"``, ``"minmax"``, ``"percentile"`` or ``"entropy"``.
        everything: If True, every convolution is in INT8, without a search.
        num_guard_images: Most images to judge by; None takes all that have labels, or 64 without labels.
        num_sensitivity: Images that show which parts are sensitive to INT8; 0 skips this.
        half_io: If True, networks for engines may have float16 inputs and outputs, where that costs too little to
            matter.
        cache: Folder of earlier calibrations; None is the user's cache.

    Raises:
        UsageError: A field is out of its range, or neither `int8` nor `float16` is set; the message names it.
    """

    int8: bool = False
    float16: bool = False
    target: str = "auto"
    max_drop: float | None = None
    method: RangeMethod | str = RangeMethod.MSE
    everything: bool = False
    num_guard_images: int | None = None
    num_sensitivity: int = 16
    half_io: bool = True
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        keep_between(
            self,
            {"num_guard_images": (1, MAX_COUNT), "num_sensitivity": (0, MAX_COUNT)},
            {"max_drop": (0, math.inf)},
        )
        if not (self.int8 or self.float16):
            raise UsageError("int8 or float16: choose at least one of them")
        if self.target not in _TARGETS:
            raise UsageError(f'target is one of {", ".join(_TARGETS)}; found "{self.target}"')
        methods = [method.value for method in RangeMethod]
        if getattr(self.method, "value", self.method) not in methods:
            raise UsageError(f'method is one of {", ".join(methods)}; found "{self.method}"')
