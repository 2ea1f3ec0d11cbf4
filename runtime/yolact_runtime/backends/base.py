"""The interface between the segmenter and an inference library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.driver import Device, Stream
from yolact_runtime.backends.engine_file import EngineFile
from yolact_runtime.model.model_file import ModelFile

__all__ = ["Backend", "BackendFactory", "DeviceBackend", "DeviceContext", "ModelSource", "TensorSpec", "path_of"]

ModelSource = Path | ModelFile | EngineFile
"""A model in one of the forms that backends load: a path, the content of a file, or an engine found in its bundle."""


def path_of(model: ModelSource) -> Path:
    """Return the path of a model, for messages."""
    return model if isinstance(model, Path) else model.path


class Backend(Protocol):
    """A loaded model, created by a :class:`BackendFactory` and freed by :meth:`close`."""

    @property
    def name(self) -> str:
        """Name for messages and records, such as ``"onnxruntime-cpu"``."""
        ...

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the model once.

        Args:
            tensor: The model's only input, C-contiguous; for the segmentation network ``(1, 3, height, width)``. Not
                modified.

        Returns:
            Output name -> array in host memory. The caller owns the arrays: a later call does not change them. May be
            called from several threads at once.

        Raises:
            BackendError: The library failed; the message includes its own text.
        """
        ...

    def close(self) -> None:
        """Free the model. May be called again."""
        ...


class BackendFactory(Protocol):
    """A callable that loads a model file.

    Raises:
        BackendUnavailableError: The library or its hardware is not available.
        BackendError: The library is available but rejects the file.
    """

    def __call__(self, model: ModelSource, num_threads: int) -> Backend: ...


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network on the GPU: contiguous, in C order.

    Attributes:
        name: Name of the tensor in the network.
        shape: Shape with batch size 1.
        dtype: Data type: float32 or float16.
        is_input: Whether the tensor is an input; otherwise it is an output.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool


class DeviceContext(Protocol):
    """An execution context of a network: it has its own intermediate memory and runs one frame at a time."""

    def bind(self, name: str, pointer: int) -> None:
        """Set the memory of an input or output for future runs; the caller owns the memory and keeps it alive."""
        ...

    def enqueue(self, stream: Stream) -> None:
        """Enqueue one run in the stream and return at once. All tensors must be bound.

        Raises:
            BackendError: The library reports an error; the message includes its own text.
        """
        ...

    def is_capturable(self, stream: Stream) -> bool:
        """Return whether :meth:`enqueue` may be captured in a CUDA graph, after a first run."""
        ...

    def close(self) -> None:
        """Free the context; the caller has waited for its work. May be called again."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend whose inputs and outputs can stay on the GPU. Several segmenters may share one.

    Attributes:
        device: The device that runs the network.
        tensors: Inputs and outputs of the network.
    """

    device: Device
    tensors: tuple[TensorSpec, ...]

    def new_context(self) -> DeviceContext:
        """Create another execution context of the same weights.

        Raises:
            BackendError: The library reports an error, usually because GPU memory is exhausted.
        """
        ...
