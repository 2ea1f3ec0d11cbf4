"""What the segmenter asks of an inference library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Backend", "BackendFactory"]


class Backend(Protocol):
    """One model, loaded and ready. Made by a :class:`BackendFactory`, freed by :meth:`close`."""

    @property
    def name(self) -> str:
        """For people and records, such as ``"onnxruntime-cpu"``."""
        ...

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the model once.

        Args:
            tensor: The model's only input, C-contiguous; for the network ``(1, 3, height, width)``. Only read.

        Returns:
            Output name -> array in host memory. The caller owns the arrays: a later call does not change them. Safe to
            call from several threads at once.

        Raises:
            BackendError: The library failed; the message carries its own words.
        """
        ...

    def close(self) -> None:
        """Free the model. May be called again."""
        ...


class BackendFactory(Protocol):
    """Loads a model file.

    Raises:
        BackendUnavailableError: The library or its hardware is not here.
        BackendError: The library is here and refuses the file.
    """

    def __call__(self, model: Path, num_threads: int) -> Backend: ...
