"""The frame pipeline in two halves, start and collect, so that frames can overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.ownership import close_all
from yolact_runtime.backends.base import Backend
from yolact_runtime.cpu.camera_frame import FrameLayout, host_bgr
from yolact_runtime.cpu.frame_buffer import FrameBuffer, LentBuffers
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cpu.preprocess import stretch
from yolact_runtime.errors import BackendError
from yolact_runtime.golden import Inspection
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import Manifest

__all__ = ["FramePath", "HostPath"]


class FramePath(Protocol):
    """The interface of a frame pipeline; see :class:`HostPath` and :class:`yolact_runtime.cuda.device_path.DevicePath`.

    Both halves may be called from any thread; a ticket is collected, or discarded, exactly once.
    """

    def start(self, frame: Any) -> Any:
        """Start processing a frame and return a ticket; the caller may change an array in host memory afterwards."""
        ...

    def frame_buffer(self, layout: FrameLayout) -> FrameBuffer:
        """Allocate memory for frames of a layout, which :meth:`start` reads without a copy.

        It is closed with the pipeline.

        Raises:
            BackendError: The pipeline is closed.
            CudaOutOfMemoryError: There is not enough memory.
        """
        ...

    def collect(self, ticket: Any) -> Instances:
        """Wait for the frame's instances, which the caller owns."""
        ...

    def discard(self, ticket: Any) -> None:
        """Discard a frame whose result is not needed."""
        ...

    def inspect(self, frame: Any) -> Inspection:
        """Return a frame's instances and the tensors that led to them.

        Slower than :meth:`collect`, because all are downloaded.

        Raises:
            FrameError, BackendError: The same as for a frame.
        """
        ...

    def close(self) -> None:
        """Free everything. May be called again."""
        ...


class _Prepared(NamedTuple):
    """A frame in progress: the network's input, and the frame's rows and columns."""

    tensor: npt.NDArray[np.float32]
    height: int
    width: int


class HostPath:
    """Preprocessing and post-processing on the CPU, whatever the network runs on. Thread-safe: frames share nothing.

    Args:
        manifest: Manifest of the model.
        network: The open network.
        postprocess: Postprocessor of this model.
        on_close: Callback that runs once, when the pipeline is closed and the network has one user less.
    """

    def __init__(
        self, manifest: Manifest, network: Backend, postprocess: Postprocessor, on_close: Callable[[], None]
    ) -> None:
        self._input = manifest.input
        self._network = network
        self._postprocess = postprocess
        self._on_close = on_close
        self._lent_buffers = LentBuffers()
        self._closed = False

    def start(self, frame: Any) -> _Prepared:
        """Preprocess a frame.

        Raises:
            FrameError: `frame` is not an image.
        """
        source = frame.frame if isinstance(frame, FrameBuffer) else frame
        bgr = host_bgr(source, self._input.bit_depth)
        return _Prepared(stretch(bgr, self._input), *bgr.shape[:2])

    def frame_buffer(self, layout: FrameLayout) -> FrameBuffer:
        """Allocate plain memory: a frame is read by :meth:`start`, and may be overwritten afterwards."""
        buffer = FrameBuffer(layout, np.empty(layout.num_bytes, np.uint8))
        self._lent_buffers.add(buffer)
        return buffer

    def collect(self, ticket: _Prepared) -> Instances:
        """Run the network and the post-processing.

        Raises:
            BackendError: The backend failed, or the network's outputs are not finite.
        """
        return self._postprocess(self._infer(ticket), ticket.height, ticket.width)

    def discard(self, ticket: _Prepared) -> None:
        """Discard a frame, for which nothing is in progress."""

    def inspect(self, frame: Any) -> Inspection:
        """Return a frame's instances and the tensors that led to them; see :class:`FramePath`."""
        ticket = self.start(frame)
        outputs = self._infer(ticket)
        return Inspection(ticket.tensor, outputs, self._postprocess(outputs, ticket.height, ticket.width))

    def _infer(self, ticket: _Prepared) -> Mapping[str, npt.NDArray[np.floating]]:
        if self._closed:
            raise BackendError("the segmenter was closed; open the model again")
        return self._network.infer(ticket.tensor)

    def close(self) -> None:
        """Release the network; a later frame raises BackendError."""
        if not self._closed:
            self._closed = True
            close_all(self._lent_buffers.close, self._on_close)
