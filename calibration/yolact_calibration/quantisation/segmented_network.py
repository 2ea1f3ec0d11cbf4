"""A network in ONNX Runtime, cut into segments, of which one at a time has its activations in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import CalibrationError, MissingDependencyError
from yolact_calibration.quantisation.graph_segments import (
    Segment,
    TensorType,
    check_tensors,
    cut_graph,
    place_tensors,
    segment_model,
)
from yolact_plugins.staging import scratch_folder
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session
from yolact_runtime.errors import BackendUnavailableError
from yolact_runtime.model.manifest import InputSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["SegmentedNetwork", "image_input"]

# About the largest feature map of a 550-pixel network: smaller segments save nothing, larger ones are no faster.
_BYTES_AT_ONCE = 16_000_000
_DTYPES = {"float": "float32", "double": "float64"}
_ALIGNMENT = 64

Array = npt.NDArray[Any]


class SegmentedNetwork:
    """Network that gives access to its activations.

    All outputs of all segments lie in one block of memory, in which tensors that are not needed at the same time share
    places; for an image nothing is allocated except by ONNX Runtime inside a segment.

    Args:
        model: Model with one input, the image. Not needed after construction.
        tensors: Names of the activations to show, without the input.
        spec: Specification of the network input.
        num_threads: Number of threads of ONNX Runtime.

    Raises:
        CalibrationError: A tensor does not exist or is not float32, or ONNX Runtime refuses the model.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], spec: InputSpec, num_threads: int) -> None:
        feed = image_input(model.graph)
        shape = (1, 3, spec.height, spec.width)
        _check_shape(model.graph, feed, shape)
        check_tensors(model.graph, tensors)
        self._num_threads = num_threads
        segments = cut_graph(model.graph, set(tensors), _BYTES_AT_ONCE)
        types = {feed: TensorType("float32", shape)}
        with scratch_folder("segments") as folder:
            sessions = [self._session(model, segment, types, folder / "segment.onnx") for segment in segments]
        for name in tensors:
            if types[name].dtype != "float32":
                raise CalibrationError(f'"{name}" is {types[name].dtype}; only float32 tensors can be calibrated')
        self._arrays = _allocate(types, segments) | {feed: np.empty(types[feed].shape, np.float32)}
        self._image = self._arrays[feed]
        self._parts = [
            (session, _bind(session, segment, self._arrays), [name for name in segment.outputs if name in set(tensors)])
            for session, segment in zip(sessions, segments, strict=True)
        ]

    def run(self, image: npt.NDArray[np.float32], show: Callable[[dict[str, Array]], None]) -> None:
        """Run the network on one image.

        Args:
            image: ``(1, 3, height, width)`` float32 preprocessed image.
            show: Function called after each segment with the requested outputs, which are overwritten later.

        Raises:
            CalibrationError: ONNX Runtime cannot run the network.
        """
        np.copyto(self._image, image)
        for session, binding, names in self._parts:
            try:
                session.run_with_iobinding(binding)
            except Exception as error:  # ONNX Runtime's errors have no common base class
                raise CalibrationError(f"ONNX Runtime cannot run the network: {error}") from error
            show({name: self._arrays[name] for name in names})

    def _session(self, model: onnx.ModelProto, segment: Segment, types: dict[str, TensorType], path: Path) -> Any:
        # An arena for each segment would keep the maximum that any of them needed. The blocked layout beyond the
        # extended optimisations needs a second copy of each shown map, which costs the time that it saves. Spinning
        # threads of waiting segments would slow the running one down.
        settings = SessionSettings(self._num_threads, has_arena=False, optimisation="extended", spins=False)
        # From a file: a session created from bytes keeps them, which doubles the memory of the weights.
        path.write_bytes(segment_model(model, segment, types).SerializeToString())
        try:
            session = open_cpu_session(path, settings)
        except BackendUnavailableError as error:
            raise MissingDependencyError("onnxruntime", "Calibrating", "export") from error
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise CalibrationError(f"ONNX Runtime refuses the network: {error}") from error
        types.update({output.name: _tensor_type(output) for output in session.get_outputs()})
        return session


def image_input(graph: onnx.GraphProto) -> str:
    """Return the name of a network's only input.

    Raises:
        CalibrationError: The network has no input, or several.
    """
    weights = {tensor.name for tensor in graph.initializer}
    names = [info.name for info in graph.input if info.name not in weights]
    if len(names) != 1:
        raise CalibrationError(f"a network to calibrate has one input, the image; found {', '.join(names) or 'none'}")
    return str(names[0])


def _check_shape(graph: onnx.GraphProto, feed: str, shape: tuple[int, ...]) -> None:
    declared = next(info for info in graph.input if info.name == feed).type.tensor_type.shape.dim
    # 0 means a dynamic length.
    lengths = [dim.dim_value for dim in declared] or [0] * len(shape)
    fits = len(lengths) == len(shape) and all(a in (0, b) for a, b in zip(lengths, shape, strict=True))
    if not fits:
        raise CalibrationError(
            f'the network\'s input "{feed}" is {lengths}, but its images are {list(shape)}; export it again, with a '
            f"batch of 1 and the size that the manifest states"
        )


def _tensor_type(output: Any) -> TensorType:
    """Return the type of a session's output."""
    if not all(isinstance(length, int) for length in output.shape):
        raise CalibrationError(
            f'the shape {output.shape} of "{output.name}" is dynamic, although that of the image is fixed; export '
            f"with a fixed size"
        )
    element = output.type.removeprefix("tensor(").removesuffix(")")
    return TensorType(_DTYPES.get(element, element), tuple(output.shape))


def _allocate(types: dict[str, TensorType], segments: Sequence[Segment]) -> dict[str, Array]:
    names = [name for segment in segments for name in segment.outputs]
    bytes_ = {name: int(np.prod(types[name].shape)) * np.dtype(types[name].dtype).itemsize for name in names}
    padded = {name: -(-size // _ALIGNMENT) * _ALIGNMENT for name, size in bytes_.items()}
    offsets, total = place_tensors(padded, segments)
    block = np.empty(total, np.uint8)
    return {
        name: block[offsets[name] : offsets[name] + bytes_[name]].view(types[name].dtype).reshape(types[name].shape)
        for name in names
    }


def _bind(session: Any, segment: Segment, arrays: dict[str, Array]) -> Any:
    binding = session.io_binding()
    for names, bind in ((segment.inputs, binding.bind_input), (segment.outputs, binding.bind_output)):
        for name in names:
            array = arrays[name]
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding
