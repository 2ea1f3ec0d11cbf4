"""The CUDA graphs of one frame in flight: what is enqueued for every frame, given to the driver in one call."""

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
    """Work that is enqueued piece by piece the first time, and launched as a graph from the second time on.

    Graphs hold the addresses that the work was captured with: :meth:`forget` them before memory moves.

    Args:
        context: Of the network that is part of the work; says whether it can be captured. Not owned.
        stream: Where everything is enqueued. Not owned.
        log: Takes what is true of all frames in flight, in a sentence for the log.
    """

    def __init__(self, context: DeviceContext, stream: Stream, log: Callable[[str], None]) -> None:
        self._context, self._stream, self._log = context, stream, log
        self._graphs: dict[str, Graph] = {}
        self._was_run = False
        self._is_possible = True

    @property
    def in_use(self) -> bool:
        """Work is launched as graphs, or will be."""
        return self._is_possible and (not self._was_run or self._context.is_capturable(self._stream))

    def run(self, name: str, enqueue: Callable[[Stream], None]) -> None:
        """Enqueue a piece of work: the first time as it is, which also lets the network's library make ready.

        Args:
            name: Of the work; one name is always the same work.
            enqueue: Enqueues it in a stream.

        Raises:
            BackendError: The network's library refuses.
            CudaError: The driver does.
        """
        if self._is_possible and self._was_run and name not in self._graphs:
            self._capture(name, enqueue)
        if name in self._graphs:
            self._graphs[name].launch(self._stream)
        else:
            enqueue(self._stream)
            self._was_run = True

    def forget(self) -> None:
        """Free the graphs; what comes next is enqueued piece by piece again. Launches of them are done.

        Raises:
            CudaError: The driver refuses; all of them were tried.
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
