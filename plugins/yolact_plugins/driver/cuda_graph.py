"""A CUDA graph: captured stream work that one call repeats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.ownership import Owned, close_after_failure
from yolact_plugins.errors import CudaError

__all__ = ["Graph"]


class Graph(Owned):
    """An executable graph of work captured from a stream. Pointers are captured by value: their memory must outlive it.

    Args:
        stream: The stream to capture, without other work. Its device is kept alive.
        enqueue: Function that enqueues the work. It must not allocate, synchronise, or query streams or events on this
            thread.

    Raises:
        CudaError: An operation cannot be captured, or the graph cannot be created.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[Stream], None]) -> None:
        stream.require_open()
        self.device = stream.device
        call = self.device.driver.call
        graph = _capture(stream, enqueue)
        destroy = partial(call, "cuGraphDestroy", graph)
        try:
            self._executable = call("cuGraphInstantiate", graph, 0)
            super().__init__(self.device)
        except BaseException:
            close_after_failure(destroy)
            raise
        try:
            destroy()
        except BaseException:
            close_after_failure(self.close)
            raise

    def upload(self, stream: Stream) -> None:
        """Upload the graph in advance, so that the first launch is not slower."""
        self.require_open()
        self.device.driver.call("cuGraphUpload", self._executable, stream.handle)

    def launch(self, stream: Stream) -> None:
        """Launch the graph in the stream and return at once. Launches of one graph run one after the other.

        Raises:
            CudaError: The driver reports an error.
        """
        self.require_open()
        self.device.driver.call("cuGraphLaunch", self._executable, stream.handle)

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuGraphExecDestroy", self._executable)


def _capture(stream: Stream, enqueue: Callable[[Stream], None]) -> object:
    driver = stream.device.driver
    # Capture this thread only: other threads may use the device meanwhile, for example to load an image.
    mode = driver.constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")
    driver.call("cuStreamBeginCapture", stream.handle, mode)
    try:
        enqueue(stream)
        graph: object = driver.call("cuStreamEndCapture", stream.handle)
    except BaseException:
        # The stream must leave capture mode or it is unusable; the first error is the one to report.
        _abandon(stream)
        raise
    return graph


def _abandon(stream: Stream) -> None:
    driver = stream.device.driver
    try:
        graph = driver.call("cuStreamEndCapture", stream.handle)
    except CudaError:
        # An invalidated capture ends with an error and yields no graph.
        return
    close_after_failure(partial(driver.call, "cuGraphDestroy", graph))
