"""The CUDA graphs of one frame in flight, each of which launches a sequence of work in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable

from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.ownership import close_all
from yolact_plugins.errors import CudaContextLostError, CudaError
from yolact_runtime.backends.base import DeviceContext
from yolact_runtime.errors import BackendError

__all__ = ["FrameGraphs"]

_log = logging.getLogger(__name__)


class FrameGraphs:
    """Work that is enqueued operation by operation the first time, and launched as a graph from the second time on.

    Graphs contain the addresses that the work was captured with: call :meth:`forget` before memory moves.

    Args:
        context: Execution context of the network, which decides whether the work can be captured. Not owned.
        stream: Stream in which everything is enqueued. Not owned.
        log: Function that logs a sentence about all frames in flight.
    """

    def __init__(self, context: DeviceContext, stream: Stream, log: Callable[[str], None]) -> None:
        self._context, self._stream, self._log = context, stream, log
        self._graphs: dict[str, Graph] = {}
        self._was_run = False
        self._is_possible = True

    @property
    def in_use(self) -> bool:
        """Whether work is, or will be, launched as graphs."""
        return self._is_possible and (not self._was_run or self._context.is_capturable(self._stream))

    def run(self, name: str, enqueue: Callable[[Stream], None]) -> None:
        """Enqueue work: the first time directly, so that the network's library can initialise, and later as a graph.

        Args:
            name: Name of the work; one name always means the same work.
            enqueue: Function that enqueues the work in a stream.

        Raises:
            BackendError: The network's library reports an error.
            CudaError: The driver reports an error.
        """
        if self._is_possible and self._was_run and name not in self._graphs:
            self._capture(name, enqueue)
        if name in self._graphs:
            self._graphs[name].launch(self._stream)
        else:
            enqueue(self._stream)
            self._was_run = True

    def forget(self) -> None:
        """Free the graphs, so that work is enqueued directly again. Their launches must be done.

        Raises:
            CudaError: The driver reports an error; freeing all of them was tried.
        """
        self._was_run = False
        graphs, self._graphs = self._graphs, {}
        close_all(*(graph.close for graph in graphs.values()))

    def _capture(self, name: str, enqueue: Callable[[Stream], None]) -> None:
        if not self._context.is_capturable(self._stream):
            self._is_possible = False
            self._log("this network cannot be captured into a CUDA graph; its kernels are launched one by one")
            return
        try:
            self._graphs[name] = Graph(self._stream, enqueue)
        except CudaContextLostError:
            raise
        except (CudaError, BackendError) as error:
            self._is_possible = False
            _log.warning("no CUDA graph, kernels are launched one by one, which costs time: %s", error)
