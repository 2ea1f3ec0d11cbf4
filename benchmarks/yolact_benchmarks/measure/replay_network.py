"""A network on the GPU that returns stored outputs, to measure and check everything around a network.

It copies the outputs on the GPU into the buffers that they are bound to, where a network would write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.backends import TensorSpec
from yolact_runtime.model.manifest import Manifest

__all__ = ["ReplayNetwork"]


class ReplayNetwork:
    """A :class:`yolact_runtime.backends.DeviceBackend` that returns stored outputs.

    Args:
        device: Device of the outputs; it belongs to the caller.
        manifest: Manifest with the size of the input.
        outputs: The four outputs by name, batch 1, float32 or float16; copied.
        input_dtype: Dtype of the image.

    Attributes:
        tensors: Specifications of the input and the outputs.
    """

    name = "replay"

    def __init__(
        self,
        device: Device,
        manifest: Manifest,
        outputs: Mapping[str, npt.NDArray[Any]],
        input_dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.device = device
        self._outputs = dict(outputs)
        image = (1, 3, manifest.input.height, manifest.input.width)
        self.tensors = (
            TensorSpec("image", image, np.dtype(input_dtype), True),
            *(TensorSpec(name, array.shape, array.dtype, False) for name, array in outputs.items()),
        )
        self._stored: dict[str, DeviceArray] = {}
        with ExitStack() as stack:
            stream = stack.enter_context(Stream(device))
            with ExitStack() as kept:
                for name, array in outputs.items():
                    buffer = kept.enter_context(DeviceBuffer(device, array.nbytes))
                    self._stored[name] = buffer.array(array.shape, array.dtype)
                self._buffers = kept.pop_all()
            self.replace(outputs, stream)

    def replace(self, outputs: Mapping[str, npt.NDArray[Any]], stream: Stream) -> None:
        """Return other outputs of the same shapes from now on; wait for the stream."""
        self._outputs = dict(outputs)
        for name, array in outputs.items():
            self._stored[name].upload(np.ascontiguousarray(array), stream)
        stream.synchronize()

    def new_context(self) -> _ReplayContext:
        """Create an execution context; their number is not limited."""
        return _ReplayContext(self.device, self._stored)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Return a copy of the outputs in host memory, whatever the input."""
        del tensor
        return {name: array.copy() for name, array in self._outputs.items()}

    def close(self) -> None:
        """Free the stored outputs. May be called again."""
        self._buffers.close()


class _ReplayContext:
    def __init__(self, device: Device, stored: Mapping[str, DeviceArray]) -> None:
        self._device, self._stored = device, stored
        self._pointers: dict[str, int] = {}

    def bind(self, name: str, pointer: int) -> None:
        self._pointers[name] = pointer

    def enqueue(self, stream: Stream) -> None:
        for name, array in self._stored.items():
            copy = (self._pointers[name], array.pointer, array.num_bytes, stream.handle)
            self._device.driver.call("cuMemcpyDtoDAsync", *copy)

    def is_capturable(self, stream: Stream) -> bool:
        del stream
        return True

    def close(self) -> None:
        self._pointers.clear()
