"""The project's own PyTorch model as the network of the frame path, with the path's buffers and stream.

It serves GPUs that no engine runs on, and tests: an output that depends on its input reveals errors that a replayed one
hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Stream
from yolact_runtime.backends import TensorSpec
from yolact_runtime.errors import BackendError
from yolact_runtime.model.manifest import Manifest

if TYPE_CHECKING:
    from yolact_export.checkpoint.checkpoint import LoadedCheckpoint

__all__ = ["TorchNetwork", "manifest_of"]


def manifest_of(loaded: LoadedCheckpoint) -> Manifest:
    """Make the manifest of a checkpoint for the runtime, without mask re-scoring."""
    config = loaded.config
    return Manifest(config.name, loaded.class_names, config.input_spec(), config.prior_spec())


class TorchNetwork:
    """A :class:`yolact_runtime.backends.DeviceBackend` that runs a PyTorch model.

    Args:
        device: GPU whose primary context PyTorch uses, too.
        model: PyTorch model; it is switched to eval mode and moved to the GPU, to `dtype` and to channels-last order,
            in place.
        height: Number of rows of the input.
        width: Number of columns of the input.
        dtype: Dtype of weights, input and outputs: float16 or float32.

    Attributes:
        tensors: Specifications of the input and the outputs.
    """

    name = "torch"

    def __init__(
        self, device: Device, model: nn.Module, height: int, width: int, dtype: npt.DTypeLike = np.float16
    ) -> None:
        self.device = device
        self._dtype = torch.float16 if np.dtype(dtype) == np.float16 else torch.float32
        self._model = model.eval().to("cuda", self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = TensorSpec("image", (1, 3, height, width), np.dtype(dtype), True)
        outputs = self.run(torch.zeros(image.shape, dtype=self._dtype, device="cuda"))
        self.tensors = (
            image,
            *(TensorSpec(name, tuple(value.shape), image.dtype, False) for name, value in outputs.items()),
        )

    @torch.inference_mode()
    def run(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the four outputs of an image on the GPU, on PyTorch's current stream."""
        outputs: Any = self._model(image.contiguous(memory_format=torch.channels_last))
        return dict(outputs._asdict())

    def new_context(self) -> _TorchContext:
        """Create an execution context; PyTorch allocates memory in each call."""
        return _TorchContext(self)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the network and return its outputs in host memory, float32."""
        outputs = self.run(torch.from_numpy(tensor).to("cuda", self._dtype))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def close(self) -> None:
        """Do nothing: the model belongs to the caller."""


class _TorchContext:
    def __init__(self, network: TorchNetwork) -> None:
        self._network = network
        self._views: dict[str, torch.Tensor] = {}
        self._was_run = False
        # The memory of a captured run must not be reused by other work afterwards.
        self._pool = torch.cuda.MemPool()

    def bind(self, name: str, pointer: int) -> None:
        (spec,) = (tensor for tensor in self._network.tensors if tensor.name == name)
        array = DeviceArray(self._network.device, pointer, spec.shape, spec.dtype)
        self._views[name] = torch.as_tensor(array, device="cuda")

    def enqueue(self, stream: Stream) -> None:
        try:
            ours = torch.cuda.ExternalStream(stream.handle)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(ours), torch.cuda.use_mem_pool(self._pool), torch.inference_mode():
                for name, value in self._network.run(self._views["image"]).items():
                    self._views[name].copy_(value)
        except RuntimeError as error:
            raise BackendError(f"torch: {error}") from error
        self._was_run = True

    def is_capturable(self, stream: Stream) -> bool:
        del stream
        return self._was_run

    def close(self) -> None:
        self._views.clear()
