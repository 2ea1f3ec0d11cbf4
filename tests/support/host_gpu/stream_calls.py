"""Calls of the driver for streams, events and graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.handles import Handles
from support.host_gpu.streams import Event, HostStreams, Stream, Work

__all__ = ["StreamCalls"]

_DISABLE_TIMING, _RECORD_EXTERNAL = 2, 1
# As cuda.h names the two default streams; 0 is the first of them, too.
_LEGACY, _PER_THREAD = 1, 2


@dataclass(eq=False)
class Graph:
    """Captured work."""

    works: list[Work]


@dataclass(eq=False)
class GraphExec:
    """A graph that can run; `latest` is where its latest run ends, because its runs wait for each other."""

    works: list[Work]
    latest: Event = field(default_factory=Event)


class StreamCalls:
    """Streams, events and graphs by handle.

    Args:
        streams: Queues of work.
        handles: Handles of all objects.
    """

    def __init__(self, streams: HostStreams, handles: Handles) -> None:
        self._streams, self._handles = streams, handles
        handles.put_permanent(streams.add(Stream(is_default=True)), 0, _LEGACY)
        handles.put_permanent(streams.add(Stream(is_default=True)), _PER_THREAD)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions by their names in the driver."""
        return {
            "cuStreamCreate": lambda _flags: self._handles.put(self._streams.add(Stream())),
            "cuStreamDestroy": lambda stream: self._streams.close(self._handles.drop(stream, Stream)),
            "cuStreamSynchronize": lambda stream: self._streams.synchronize(self._stream(stream)),
            "cuStreamQuery": lambda stream: self._query(self._streams.place_of(self._stream(stream))),
            "cuStreamWaitEvent": self._wait,
            "cuStreamBeginCapture": self._begin_capture,
            "cuStreamEndCapture": self._end_capture,
            "cuEventCreate": lambda flags: self._handles.put(Event(timing=not flags & _DISABLE_TIMING)),
            "cuEventDestroy": lambda event: self._handles.drop(event, Event) and None,
            "cuEventRecord": lambda event, stream: self._streams.record(self._event(event), self._stream(stream)),
            "cuEventRecordWithFlags": self._record_in_graph,
            "cuEventSynchronize": lambda event: self._streams.synchronize_event(self._event(event)),
            "cuEventQuery": lambda event: self._query(self._event(event)),
            "cuEventElapsedTime": self._elapsed_ms,
            "cuGraphInstantiate": self._instantiate,
            "cuGraphDestroy": lambda graph: self._handles.drop(graph, Graph) and None,
            "cuGraphUpload": self._upload,
            "cuGraphLaunch": self._launch,
            "cuGraphExecDestroy": lambda graph: self._handles.drop(graph, GraphExec) and None,
        }

    def _stream(self, handle: Any) -> Stream:
        return self._handles.get(handle, Stream)

    def _event(self, handle: Any) -> Event:
        return self._handles.get(handle, Event)

    def _query(self, event: Event) -> None:
        if not self._streams.reached(event):
            raise HostGpuError(Status.NOT_READY, "not ready")

    def _wait(self, stream: Any, event: Any, _flags: int) -> None:
        self._streams.wait(self._stream(stream), self._event(event))

    def _record_in_graph(self, event_handle: Any, handle: Any, flags: int) -> None:
        """Add work to the graph that records the event when it runs, in the stream it runs in (flag "external")."""
        event, stream = self._event(event_handle), self._stream(handle)
        if flags != _RECORD_EXTERNAL or stream.capture is None:
            raise HostGpuError(Status.INVALID_VALUE, "an external mark belongs into a capture")
        self._streams.enqueue(stream, Work(lambda: self._streams.mark(event), "a mark in a graph"))

    def _elapsed_ms(self, start: Any, end: Any) -> float:
        """Return one millisecond for any period, because there is no clock."""
        for event in (self._event(start), self._event(end)):
            if not event.timing or event.stream is None or event.capture is not None:
                raise HostGpuError(Status.INVALID_HANDLE, "an event without a time, or one that was never recorded")
            if event.stream.done < event.place:
                raise HostGpuError(Status.NOT_READY, "an event that is not reached has no time")
        return 1.0

    def _begin_capture(self, handle: Any, mode: Any) -> None:
        self._streams.begin_capture(self._stream(handle), mode.name.removeprefix("CU_STREAM_CAPTURE_MODE_").lower())

    def _end_capture(self, handle: Any) -> int:
        return self._handles.put(Graph(self._streams.end_capture(self._stream(handle))))

    def _instantiate(self, handle: Any, _flags: int) -> int:
        return self._handles.put(GraphExec(list(self._handles.get(handle, Graph).works)))

    def _upload(self, handle: Any, stream: Any) -> None:
        self._handles.get(handle, GraphExec)
        self._stream(stream)

    def _launch(self, handle: Any, stream_handle: Any) -> None:
        graph, stream = self._handles.get(handle, GraphExec), self._stream(stream_handle)
        if stream.capture is None:
            self._streams.wait(stream, graph.latest)
        for work in graph.works:
            self._streams.enqueue(stream, work)
        if stream.capture is None:
            self._streams.record(graph.latest, stream)
