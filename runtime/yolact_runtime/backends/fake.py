"""A backend that replays stored outputs, for tests and demos without an inference library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import BackendError

__all__ = ["FakeBackend"]


class FakeBackend:
    """A backend that returns the given outputs one after the other, and then repeats the last one.

    Attributes:
        tensors: All inputs that it was called with, in order.
    """

    name = "fake"

    def __init__(self, outputs: Sequence[Mapping[str, npt.NDArray[np.floating]]]) -> None:
        if not outputs:
            raise BackendError("a fake backend needs at least one set of outputs to replay")
        self._outputs = list(outputs)
        self._closed = False
        self.tensors: list[npt.NDArray[np.float32]] = []

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Return the next set of outputs, as copies that the caller owns."""
        if self._closed:
            raise BackendError("the backend was closed; open the model again")
        index = min(len(self.tensors), len(self._outputs) - 1)
        self.tensors.append(tensor)
        return {name: array.copy() for name, array in self._outputs[index].items()}

    def close(self) -> None:
        """Reject further calls."""
        self._closed = True
