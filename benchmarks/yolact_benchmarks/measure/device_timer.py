"""Times of frames and of their stages for a segmenter that processes them on the GPU, by CUDA events.

The whole frame is timed through the segmenter, by the wall clock: until all work is enqueued, and until the result has
arrived. The stages are timed in a second pass over the same frame: a CUDA graph of its own, with an event between any
two stages, so that the times are the GPU's. (Stages that are launched one by one wait for the host in between, so that
their times include Python's; this is only done for engines that cannot be captured in a graph.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.gpu_stages import frame_parts
from yolact_benchmarks.measure.planted import planted_outputs
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.stages import CANDIDATES, MASK_IOU, MASKS, NETWORK, NMS, PREPROCESS, FrameTimes, Stage
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.driver import Event, Stream
from yolact_runtime.backends import DeviceBackend, DeviceContext
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.cuda.frame_launches import FrameLaunches
from yolact_runtime.cuda.frame_slot import FrameSlot
from yolact_runtime.errors import UsageError
from yolact_runtime.segmenter import Segmenter

__all__ = ["DeviceModel", "DeviceTimer", "PlantedDevice"]

ENQUEUE = Stage("enqueue", "until everything is given to the GPU, the copy of the frame to pinned memory included")
RESULT = Stage("result", "the wait for the GPU, and the instances made of what it returned")
UPLOAD = Stage("upload", "the frame from pinned memory to the GPU", "device")
DOWNLOAD = Stage("download", "counts, boxes, scores and runs to memory of the host, by a kernel", "device")
_PARTS = (PREPROCESS, NETWORK, CANDIDATES, NMS, MASKS)


class DeviceTimer:
    """A :class:`~yolact_benchmarks.measure.stages.FrameTimer` for frames on the GPU; see the module.

    Close it after the segmenter's last frame.

    Args:
        segmenter: Segmenter with its post-processing on the GPU; it is not closed with the timer.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        path = segmenter.frame_path
        if not isinstance(path, DevicePath):
            raise UsageError(f"{segmenter.backend_name} has its post-processing on the CPU: its stages are timed there")
        self.segmenter = segmenter
        self._path = path
        parts = (*_PARTS, MASK_IOU) if path.model.rescore else _PARTS
        on_device = (Stage(part.name, part.what, "device") for part in parts)
        self.stages: tuple[Stage, ...] = (ENQUEUE, RESULT, UPLOAD, *on_device, DOWNLOAD)
        with ExitStack() as stack:
            path.device.make_current()
            names = [stage for stage in self.stages if stage.clock == "device"]
            self._marks = [stack.enter_context(Event(path.device, timing=True)) for _ in range(len(names) + 1)]
            self._owned = stack.pop_all()
        # Each graph is kept with the launches that it was captured from: later launches of a slot have other pointers.
        self._graphs: dict[FrameSlot, tuple[FrameLaunches, Graph]] = {}
        self._owned.callback(self._forget_graphs)

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        """Run one frame, and its stages a second time, and return the times."""
        begun = time.perf_counter()
        ticket = self._path.start(frame)
        enqueued = time.perf_counter()
        instances = self._path.collect(ticket)
        ended = time.perf_counter()
        stage_ms = {ENQUEUE.name: (enqueued - begun) * 1e3, RESULT.name: (ended - enqueued) * 1e3}
        return FrameTimes((ended - begun) * 1e3, stage_ms | self._stages(frame), len(instances))

    def close(self) -> None:
        """Free the events and the graphs."""
        self._owned.close()

    def _stages(self, frame: npt.NDArray[np.uint8]) -> dict[str, float]:
        slot = self._path.start(frame)
        try:
            slot.finish()
            if self._path.uses_graphs:
                self._graph_of(slot).launch(slot.stream)
            else:
                self._enqueue(slot, Event.record, slot.stream)
            slot.stream.synchronize()
            ends = zip(self._marks, self._marks[1:], strict=False)
            times = (end.milliseconds_since(begin) for begin, end in ends)
            return dict(zip(frame_parts(slot), times, strict=True))
        finally:
            self._path.give_back(slot)

    def _enqueue(self, slot: FrameSlot, record: Callable[[Event, Stream], None], stream: Stream) -> None:
        record(self._marks[0], stream)
        for mark, enqueue in zip(self._marks[1:], frame_parts(slot).values(), strict=True):
            enqueue(stream)
            record(mark, stream)

    def _graph_of(self, slot: FrameSlot) -> Graph:
        launches, graph = self._graphs.get(slot, (None, None))
        if graph is None or launches is not slot.launches:
            if graph is not None:
                graph.close()
            graph = Graph(slot.stream, partial(self._enqueue, slot, Event.record_in_graph))
            graph.upload(slot.stream)
            self._graphs[slot] = slot.launches, graph
        return graph

    def _forget_graphs(self) -> None:
        while self._graphs:
            _, (_, graph) = self._graphs.popitem()
            graph.close()


class PlantedDevice:
    """A network on the GPU that runs on every frame, and whose outputs are then replaced by stored ones.

    The replacement is a copy on the GPU that takes some microseconds, which count as the network's. Closing it leaves
    the network open.

    Args:
        network: Network to run.
        replay: Source of the stored outputs; owned.
    """

    def __init__(self, network: DeviceBackend, replay: ReplayNetwork) -> None:
        self.name, self.device, self.tensors = network.name, network.device, network.tensors
        self._network, self._replay = network, replay

    def new_context(self) -> DeviceContext:
        """Create an execution context that runs the network and then copies the stored outputs."""
        return _PlantedContext(self._network.new_context(), self._replay.new_context())

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the network, drop its outputs, and return the stored ones."""
        self._network.infer(tensor)
        return self._replay.infer(tensor)

    def close(self) -> None:
        """Free the stored outputs."""
        self._replay.close()


class _PlantedContext:
    def __init__(self, network: DeviceContext, replay: DeviceContext) -> None:
        self._both = (network, replay)

    def bind(self, name: str, pointer: int) -> None:
        for context in self._both:
            context.bind(name, pointer)

    def enqueue(self, stream: Stream) -> None:
        for context in self._both:
            context.enqueue(stream)

    def is_capturable(self, stream: Stream) -> bool:
        return all(context.is_capturable(stream) for context in self._both)

    def close(self) -> None:
        for context in self._both:
            context.close()


class DeviceModel:
    """An open engine that makes timers for given numbers of instances. A context manager.

    Args:
        segmenter: Segmenter with its post-processing on the GPU; owned.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        network = segmenter.network
        if not isinstance(network, DeviceBackend):
            raise UsageError(f"{segmenter.backend_name} does not keep its outputs on the GPU")
        self._network = network
        self._owned = ExitStack()
        self._owned.callback(segmenter.close)

    def timer(self, num_instances: int | None = None) -> DeviceTimer:
        """Create a timer, which is closed with the model.

        Args:
            num_instances: Number of instances in every frame; None keeps what the network finds. See
                :mod:`yolact_benchmarks.measure.planted`.

        Raises:
            UsageError: The model cannot return this many instances.
        """
        segmenter = self.segmenter
        if num_instances is not None:
            manifest = segmenter.manifest
            like = self._network.infer(np.zeros((1, 3, manifest.input.height, manifest.input.width), np.float32))
            outputs = planted_outputs(manifest, like, num_instances)
            (image,) = (tensor for tensor in self._network.tensors if tensor.is_input)
            self._network.device.make_current()
            replay = ReplayNetwork(self._network.device, manifest, outputs, image.dtype)
            planted = PlantedDevice(self._network, replay)
            rescoring = None if segmenter.mask_rescoring is None else segmenter.mask_rescoring.again()
            segmenter = self._owned.enter_context(Segmenter(manifest, planted, rescoring, segmenter.options))
        timer = DeviceTimer(segmenter)
        self._owned.callback(timer.close)
        return timer

    def close(self) -> None:
        """Close the timers and the segmenter. May be called again."""
        self._owned.close()

    def __enter__(self) -> DeviceModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
