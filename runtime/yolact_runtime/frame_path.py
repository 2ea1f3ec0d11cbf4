"""The way of a frame through a model, in two halves, so that frames can overlap: started, and later collected."""

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
    """What a segmenter asks; see :class:`HostPath` and :class:`yolact_runtime.cuda.device_path.DevicePath`.

    Both halves may be called from any thread; a ticket is collected, or discarded, exactly once.
    """

    def start(self, frame: Any) -> Any:
        """Begin with a frame and return a ticket; the caller may change an array in host memory afterwards."""
        ...

    def frame_buffer(self, layout: FrameLayout) -> FrameBuffer:
        """Memory for frames of a layout, which :meth:`start` takes without a copy; it is closed with the path.

        Raises:
            BackendError: The path is closed.
            CudaOutOfMemoryError: There is not that much.
        """
        ...

    def collect(self, ticket: Any) -> Instances:
        """Wait for the frame's instances, which the caller owns."""
        ...

    def discard(self, ticket: Any) -> None:
        """Nobody wants the frame any more."""
        ...

    def inspect(self, frame: Any) -> Inspection:
        """A frame's instances, and what led to them; slower than a frame, because everything comes to the host.

        Raises:
            FrameError, BackendError: As for a frame.
        """
        ...

    def close(self) -> None:
        """Free everything. May be called again."""
        ...


class _Prepared(NamedTuple):
    """A frame on its way: the network's input, and the frame's rows and columns."""

    tensor: npt.NDArray[np.float32]
    height: int
    width: int


class HostPath:
    """Preprocessing and post-processing on the CPU, whatever the network runs on. Thread-safe: frames share nothing.

    Args:
        manifest: What the model states.
        network: Open.
        postprocess: For this model.
        on_close: Called once, when the path is closed: the network has one user less.
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
        """Plain memory: a frame is read when it is begun with, and may be overwritten at once."""
        buffer = FrameBuffer(layout, np.empty(layout.num_bytes, np.uint8))
        self._lent_buffers.add(buffer)
        return buffer

    def collect(self, ticket: _Prepared) -> Instances:
        """Run the network and what follows it.

        Raises:
            BackendError: The backend failed, or the network's outputs are not finite.
        """
        return self._postprocess(self._infer(ticket), ticket.height, ticket.width)

    def discard(self, ticket: _Prepared) -> None:
        """Nothing was begun that would need an end."""

    def inspect(self, frame: Any) -> Inspection:
        """A frame's instances, and what led to them; see :class:`FramePath`."""
        ticket = self.start(frame)
        outputs = self._infer(ticket)
        return Inspection(ticket.tensor, outputs, self._postprocess(outputs, ticket.height, ticket.width))

    def _infer(self, ticket: _Prepared) -> Mapping[str, npt.NDArray[np.floating]]:
        if self._closed:
            raise BackendError("the segmenter was closed; open the model again")
        return self._network.infer(ticket.tensor)

    def close(self) -> None:
        """Let the network go; a later frame raises BackendError."""
        if not self._closed:
            self._closed = True
            close_all(self._lent_buffers.close, self._on_close)
