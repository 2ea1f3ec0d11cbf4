"""A CUDA graph: everything that was once put into a stream, to be repeated with one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.ownership import Owned, close_after_failure
from yolact_plugins.errors import CudaError

__all__ = ["Graph"]


class Graph(Owned):
    """Work captured from a stream, ready to run. Pointers are captured as they are: their memory must outlive it.

    Args:
        stream: Captured from; empty of other work. Its device is kept alive.
        enqueue: Puts the work into the stream. Allocating, synchronising and asking streams or events on this thread
            is not allowed meanwhile.

    Raises:
        CudaError: Something that cannot be captured was called, or the graph cannot be made.
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
        """Do beforehand what the first launch would do."""
        self.require_open()
        self.device.driver.call("cuGraphUpload", self._executable, stream.handle)

    def launch(self, stream: Stream) -> None:
        """Put all the work into the stream; returns at once. One run at a time: runs of one graph wait for each other.

        Raises:
            CudaError: The driver refuses.
        """
        self.require_open()
        self.device.driver.call("cuGraphLaunch", self._executable, stream.handle)

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuGraphExecDestroy", self._executable)


def _capture(stream: Stream, enqueue: Callable[[Stream], None]) -> object:
    driver = stream.device.driver
    # Of this thread alone: what other threads do with the device meanwhile, such as loading an image, is no fault.
    mode = driver.constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")
    driver.call("cuStreamBeginCapture", stream.handle, mode)
    try:
        enqueue(stream)
        graph: object = driver.call("cuStreamEndCapture", stream.handle)
    except BaseException:
        # The stream must leave the capture, or it is useless from now on; the first error is the one to report.
        _abandon(stream)
        raise
    return graph


def _abandon(stream: Stream) -> None:
    driver = stream.device.driver
    try:
        graph = driver.call("cuStreamEndCapture", stream.handle)
    except CudaError:
        # An invalidated capture ends with an error and gives no graph.
        return
    close_after_failure(partial(driver.call, "cuGraphDestroy", graph))
