"""Networks for tests of the frame path.

:class:`HostNetwork` computes on the host, in stream order of :class:`HostDriver`. :class:`EchoNetwork` runs on every
device, simulated or real: its prototypes are its input, so that the masks show the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from support.host_gpu import HostDriver
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_plugins.driver.driver import Device, Stream
from yolact_runtime.backends import DeviceContext, TensorSpec
from yolact_runtime.errors import BackendError
from yolact_runtime.model.manifest import Manifest

__all__ = ["EchoBackend", "EchoNetwork", "HostNetwork", "replay", "tensor_specs"]

Outputs = Mapping[str, npt.NDArray[np.floating]]
Function = Callable[[npt.NDArray[np.floating]], Outputs]


def tensor_specs(
    manifest: Manifest,
    prototype_shape: tuple[int, int, int],
    dtype: npt.DTypeLike = np.float32,
    input_dtype: npt.DTypeLike = np.float32,
) -> tuple[TensorSpec, ...]:
    """Return the tensors of a model's engine; `prototype_shape` is (K, Hp, Wp)."""
    priors, classes = manifest.priors.num_priors, len(manifest.class_names) + 1
    shapes = {
        "box_regression": (1, priors, 4),
        "class_logit": (1, priors, classes),
        "mask_coefficient": (1, priors, prototype_shape[0]),
        "prototype": (1, *prototype_shape),
    }
    image = TensorSpec("image", (1, 3, manifest.input.height, manifest.input.width), np.dtype(input_dtype), True)
    return image, *(TensorSpec(name, shape, np.dtype(dtype), False) for name, shape in shapes.items())


def replay(scenes: Sequence[Outputs]) -> Function:
    """Make a network function that returns one scene's outputs after the other, and then the last one forever."""
    left = list(scenes)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


class HostNetwork:
    """A :class:`yolact_runtime.backends.DeviceBackend` for tests.

    Attributes:
        inputs: Copies of the network's inputs, in order.
        num_contexts: Number of open contexts.
        capturable: Whether its contexts can be captured in a graph.
        closed: Whether its owner closed it.
    """

    def __init__(self, device: Device, tensors: tuple[TensorSpec, ...], function: Function) -> None:
        self.name = "tensorrt"
        self.device, self.tensors, self.function = device, tensors, function
        self.inputs: list[npt.NDArray[np.floating]] = []
        self.num_contexts = 0
        self.capturable = True
        self.closed = False

    def new_context(self) -> HostContext:
        self.num_contexts += 1
        return HostContext(self)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Outputs:
        (image,) = (spec for spec in self.tensors if spec.is_input)
        given = tensor.astype(image.dtype)
        self.inputs.append(given)
        outputs = self.function(given)
        return {spec.name: outputs[spec.name].astype(spec.dtype) for spec in self.tensors if not spec.is_input}

    def close(self) -> None:
        assert self.num_contexts == 0
        self.closed = True


class HostContext:
    """An execution context of a :class:`HostNetwork`."""

    def __init__(self, network: HostNetwork) -> None:
        self._network = network
        self._pointers: dict[str, int] = {}
        self._open = True

    def bind(self, name: str, pointer: int) -> None:
        self._pointers[name] = pointer

    def enqueue(self, stream: Stream) -> None:
        if not self._open:
            raise BackendError("closed")
        driver: Any = self._network.device.driver
        assert isinstance(driver, HostDriver)
        pointers = dict(self._pointers)
        driver.enqueue(stream.handle, lambda: self._compute(driver, pointers))

    def is_capturable(self, stream: Stream) -> bool:  # asked of a stream
        return self._network.capturable

    def close(self) -> None:
        self._network.num_contexts -= self._open
        self._open = False

    def _compute(self, driver: HostDriver, pointers: Mapping[str, int]) -> None:
        views = {
            tensor.name: driver.view(pointers[tensor.name], tensor.shape, tensor.dtype)
            for tensor in self._network.tensors
        }
        image = views.pop("image").copy()
        self._network.inputs.append(image)
        outputs = self._network.function(image)
        for name, view in views.items():
            view[...] = outputs[name]


class EchoBackend:
    """Network on the host with stored outputs, whose prototypes are its input.

    Args:
        outputs: Stored outputs, with prototypes of the input's shape.

    Attributes:
        tensors: Copies of the inputs, in order.
    """

    name = "echo"

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.tensors: list[npt.NDArray[np.float32]] = []

    def infer(self, tensor: npt.NDArray[np.float32]) -> Outputs:
        self.tensors.append(tensor.copy())
        return {**self._outputs, "prototype": tensor.astype(self._outputs["prototype"].dtype)}

    def close(self) -> None:
        pass


class EchoNetwork:
    """A :class:`yolact_runtime.backends.DeviceBackend` that copies its input into the prototypes, on the GPU.

    Args:
        device: Device to run on.
        manifest: Manifest with the shape of the input.
        outputs: Stored outputs; the prototypes have the input's shape, and the input has their dtype.
    """

    name = "echo"

    def __init__(self, device: Device, manifest: Manifest, outputs: Outputs) -> None:
        self.device = device
        self._host = EchoBackend(outputs)
        self._replay = ReplayNetwork(device, manifest, outputs, outputs["prototype"].dtype)
        self.tensors = self._replay.tensors

    def new_context(self) -> EchoContext:
        return EchoContext(self, self._replay.new_context())

    def infer(self, tensor: npt.NDArray[np.float32]) -> Outputs:
        return self._host.infer(tensor)

    def close(self) -> None:
        self._replay.close()


class EchoContext:
    """An execution context of an :class:`EchoNetwork`."""

    def __init__(self, network: EchoNetwork, replay: DeviceContext) -> None:
        self._network, self._replay = network, replay
        self._pointers: dict[str, int] = {}

    def bind(self, name: str, pointer: int) -> None:
        self._pointers[name] = pointer
        self._replay.bind(name, pointer)

    def enqueue(self, stream: Stream) -> None:
        self._replay.enqueue(stream)
        image = self._network.tensors[0]
        num_bytes = int(np.prod(image.shape)) * image.dtype.itemsize
        copy = (self._pointers["prototype"], self._pointers["image"], num_bytes, stream.handle)
        self._network.device.driver.call("cuMemcpyDtoDAsync", *copy)

    def is_capturable(self, stream: Stream) -> bool:
        return self._replay.is_capturable(stream)

    def close(self) -> None:
        self._replay.close()
