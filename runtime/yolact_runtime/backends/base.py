"""What the segmenter asks of an inference library."""

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
"""What a backend loads: a file that it reads itself, one that was read, or an engine that was found in its bundle."""


def path_of(model: ModelSource) -> Path:
    """Where a model lies, for messages."""
    return model if isinstance(model, Path) else model.path


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

    def __call__(self, model: ModelSource, num_threads: int) -> Backend: ...


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network on the GPU: contiguous, in C order.

    Attributes:
        name: Of the network's.
        shape: With batch 1.
        dtype: float32 or float16.
        is_input: Or an output.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool


class DeviceContext(Protocol):
    """One place where a network runs: it has its own intermediate memory, and one frame at a time."""

    def bind(self, name: str, pointer: int) -> None:
        """Where an input is read, or an output written, from now on; the memory is the caller's and stays."""
        ...

    def enqueue(self, stream: Stream) -> None:
        """Put one run into the stream; returns at once. All tensors are bound before.

        Raises:
            BackendError: The library refuses; the message carries its own words.
        """
        ...

    def is_capturable(self, stream: Stream) -> bool:
        """After a first run: :meth:`enqueue` may become a part of a CUDA graph."""
        ...

    def close(self) -> None:
        """Free the context; the caller has waited for its work. May be called again."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend whose inputs and outputs can stay on the GPU. Several segmenters may share one.

    Attributes:
        device: Where.
        tensors: Inputs and outputs.
    """

    device: Device
    tensors: tuple[TensorSpec, ...]

    def new_context(self) -> DeviceContext:
        """Another place to run the same weights.

        Raises:
            BackendError: The library refuses, as a rule for want of memory.
        """
        ...
