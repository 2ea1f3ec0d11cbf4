"""The project's own PyTorch model as the network of the frame path: in and out of our memory, on our stream.

For GPUs on which no engine runs, and for tests: an output that depends on its input shows what a replayed one hides.
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
    """What the runtime needs to know of a checkpoint; its masks are not re-scored."""
    config = loaded.config
    return Manifest(config.name, loaded.class_names, config.input_spec(), config.prior_spec())


class TorchNetwork:
    """A :class:`yolact_runtime.backends.DeviceBackend`.

    Args:
        device: The GPU; PyTorch uses its primary context, too.
        model: In eval mode; moved to the GPU, to `dtype`, and to channels-last order, in place.
        height: Rows of the input.
        width: Columns of the input.
        dtype: float16 or float32, of weights, input and outputs.

    Attributes:
        tensors: Input and outputs.
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
        """The four outputs of an image on the GPU, on PyTorch's current stream."""
        outputs: Any = self._model(image.contiguous(memory_format=torch.channels_last))
        return dict(outputs._asdict())

    def new_context(self) -> _TorchContext:
        """Another execution context: PyTorch allocates for each call."""
        return _TorchContext(self)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """The outputs in host memory, float32."""
        outputs = self.run(torch.from_numpy(tensor).to("cuda", self._dtype))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def close(self) -> None:
        """Nothing to free: the model is the caller's."""


class _TorchContext:
    def __init__(self, network: TorchNetwork) -> None:
        self._network = network
        self._views: dict[str, torch.Tensor] = {}
        self._was_run = False
        # What a captured run uses must belong to nobody else afterwards.
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
