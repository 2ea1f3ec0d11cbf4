"""Search for the overflow of a float16 network: its first tensors that are not finite, and the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from yolact_calibration.float16.rounding import rounded_tensors, simulate_float16
from yolact_calibration.quantisation.observer import FrameSource
from yolact_calibration.quantisation.segmented_network import SegmentedNetwork
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import InputSpec

__all__ = ["Overflow", "find_overflow"]

_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Overflow:
    """Tensors that are not finite on one image.

    Attributes:
        image: Name of the image.
        tensors: Names of the tensors in the order of the graph; the overflow begins in the first.
        num_values: Number of values of the first tensor that are not finite.
        size: Number of values of the first tensor.
    """

    image: str
    tensors: tuple[str, ...]
    num_values: int
    size: int

    def __str__(self) -> str:
        later = self.tensors[1:_NAMES_SHOWN]
        more = len(self.tensors) - 1 - len(later)
        then = f", then {', '.join(later)}" if later else ""
        then += f" and {more} more" if more > 0 else ""
        return f"first in {self.tensors[0]} ({self.num_values} of {self.size} values) on {self.image}{then}"


def find_overflow(
    model: onnx.ModelProto, frames: FrameSource, spec: InputSpec, num_threads: int = 1
) -> Overflow | None:
    """Find the first image on which a float16 network has infinities or NaN; return None if all values are finite.

    Args:
        model: Network in float16, with or without Q/DQ, as it is written to a file.
        frames: Images as the camera delivers them.
        spec: Network input, for preprocessing as in the runtime.
        num_threads: Number of threads of ONNX Runtime; 0 uses all.

    Raises:
        CalibrationError: ONNX Runtime refuses the network, or it cannot be simulated.
    """
    simulated = simulate_float16(model)
    tensors = rounded_tensors(simulated)
    network = SegmentedNetwork(simulated, tensors, spec, num_threads)
    for name, frame in frames:
        found = _not_finite(network, preprocess(frame, spec))
        if bad := tuple(tensor for tensor in tensors if found[tensor][0]):
            return Overflow(name, bad, *found[bad[0]])
    return None


def _not_finite(network: SegmentedNetwork, image: npt.NDArray[np.float32]) -> dict[str, tuple[int, int]]:
    """Count the values of each tensor that are not finite, and all of its values."""
    found: dict[str, tuple[int, int]] = {}

    def count(values: Mapping[str, npt.NDArray[Any]]) -> None:
        found.update({name: (int(np.count_nonzero(~np.isfinite(value))), value.size) for name, value in values.items()})

    network.run(image, count)
    return found
