"""One frame in flight: its stream, its memory, its execution context, and the order of its operations.

The frame pipeline: upload (none on machines where CPU and GPU share memory, and for frames on the GPU), preprocess,
network, candidates, Fast NMS, masks, and a kernel that copies the results to the host. The first frame of a size and
format is enqueued operation by operation; from the second on, everything behind the upload is one launch of a CUDA
graph, if the backend allows that. Graphs contain addresses; the upload is not part of them, so that a frame may come
from any buffer, and can be in progress while the rest of the frame is still copied to pinned memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from yolact_plugins.driver.device_array import DeviceArray, contiguous_strides
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.foreign_array import take_array
from yolact_plugins.driver.ownership import close_after_failure, close_all
from yolact_plugins.errors import ShapeError
from yolact_plugins.frame_status import FrameStatus
from yolact_runtime.backends.base import DeviceBackend
from yolact_runtime.cpu.camera_frame import CameraFrame, FrameLayout, PixelFormat
from yolact_runtime.cuda.device_frame_buffer import DeviceFrameBuffer
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.cuda.frame_graphs import FrameGraphs
from yolact_runtime.cuda.frame_launches import FrameLaunches
from yolact_runtime.cuda.frame_memory import FrameMemory
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.errors import BackendError, FrameError

__all__ = ["FrameSlot"]

_log = logging.getLogger(__name__)
# A frame that does not fit is run again with a quarter more room than it needs.
_MORE_NUMERATOR, _MORE_DENOMINATOR = 5, 4
_MAX_RUNS_OF_A_FRAME = 4
# A frame is uploaded in parts of this size, each as soon as it is copied: the upload of one takes about as long as the
# copy of the next. Smaller parts cost more driver calls; larger ones delay the last part.
_BAND_BYTES = 1 << 20


class FrameSlot:
    """A slot for one frame at a time: :meth:`start` begins, :meth:`finish` waits.

    Args:
        backend: The backend, which provides an execution context.
        model: The model that processes the frames.
        kernels: Kernels loaded on the backend's device.
        constants: Constants of the model on the device; see :class:`yolact_runtime.cuda.frame_launches.FrameLaunches`.
        log: Function that logs a sentence about all slots.

    Raises:
        CudaOutOfMemoryError: GPU memory is exhausted.
        BackendError: The backend cannot create another context.

    Attributes:
        memory: Memory of the frame; its results are valid from :meth:`finish` to the next :meth:`start`.
        stream: Stream in which everything runs.
        launches: Launches for the layout of the latest frame.
        layout: Layout of the latest frame.
        input_name: Name of the network's input in ``memory.arrays``.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        model: FrameModel,
        kernels: DeviceKernels,
        constants: Mapping[str, DeviceArray],
        log: Callable[[str], None] = _log.info,
    ) -> None:
        self._model, self._kernels, self._constants = model, kernels, constants
        self.input_name = model.input_name
        self._device: Device = backend.device
        self._device.make_current()
        self._foreign: tuple[DeviceArray, ...] = ()
        self._buffer: DeviceFrameBuffer | None = None
        self.layout: FrameLayout | None = None
        self.launches: FrameLaunches
        made: list[Callable[[], None]] = []
        try:
            self.stream = Stream(self._device)
            made.append(self.stream.close)
            self._done = Event(self._device)
            made.append(self._done.close)
            self.memory = FrameMemory(self._device, model)
            made.append(self.memory.close)
            self._context = backend.new_context()
            made.append(self._context.close)
            for tensor in model.tensors.values():
                self._context.bind(tensor.name, self.memory.arrays[tensor.name].pointer)
            self._graphs = FrameGraphs(self._context, self.stream, log)
        except BaseException:
            close_after_failure(*reversed(made))
            raise

    def warm_up(self, layout: FrameLayout) -> None:
        """Allocate memory for frames in host memory of a layout, and run an empty one twice to initialise the rest.

        Raises:
            CudaOutOfMemoryError: GPU memory is exhausted.
            FrameError: Such frames overflow the kernels' arithmetic.
        """
        self._device.make_current()
        self._prepare(layout)
        self.memory.staging[:] = 0
        self.enqueue_upload(self.stream)
        for _ in range(2):
            self._run()
        self.stream.synchronize()

    def start(self, frame: CameraFrame | DeviceFrameBuffer) -> None:
        """Start processing a frame, without waiting for the GPU.

        Args:
            frame: The frame. In host memory it may be changed after the call, except for a frame buffer, which is read
                in place and must not change before :meth:`finish`. A frame on the GPU is read in place, too, once its
                owner's stream has written it.

        Raises:
            FrameError: The frame overflows the kernels' arithmetic; is on the GPU with gaps between its pixels, or on
                another GPU; or is a buffer whose previous frame is not finished.
            BackendError: The buffer is closed.
            CudaError: The driver reports an error.
        """
        self._device.make_current()
        self._prepare(frame.layout)
        try:
            if isinstance(frame, DeviceFrameBuffer):
                self._use(frame)
            elif frame.on_device:
                self._take(frame)
            else:
                self._copy(frame)
            self._run()
        except BaseException:
            if self._buffer is not None:
                # Its copy may be in progress.
                close_after_failure(self.stream.synchronize)
            self._let_go()
            raise

    def abandon(self) -> None:
        """Wait for a frame whose result is not needed."""
        try:
            self._device.make_current()
            self._done.synchronize()
        finally:
            self._let_go()

    def finish(self) -> int:
        """Wait for the frame, once; run it again if it needs more memory than there was.

        Returns:
            Number of detections; they are in ``memory.results``.

        Raises:
            BackendError: The network's outputs are not finite, or its library failed.
            CudaError: Something failed on the GPU.
        """
        try:
            self._device.make_current()
            for _ in range(_MAX_RUNS_OF_A_FRAME):
                self._done.synchronize()
                results = self.memory.results
                status, count = int(results["status"][0]), int(results["detection_count"][0])
                _require_valid(status)
                if not status:
                    return count
                self._grow(count)
                self._run()
            raise BackendError("the masks of this frame need more memory at every attempt; please report this frame")
        finally:
            self._let_go()

    def enqueue_upload(self, stream: Stream) -> None:
        """Enqueue the upload of a frame in host memory; nothing if CPU and GPU share their memory."""
        if self.layout is not None:
            self._upload(self.memory.staging_address, 0, self.layout.num_bytes, stream)

    def enqueue_inference(self, stream: Stream) -> None:
        """Enqueue the network."""
        self._context.enqueue(stream)

    def enqueue_download(self, stream: Stream) -> None:
        """Enqueue the kernel that copies all results of a frame to the host, with only the existing runs."""
        self.launches.download.enqueue(stream)

    def enqueue_all(self, stream: Stream) -> None:
        """Enqueue all operations for a frame in host memory, one by one."""
        self.enqueue_upload(stream)
        self._enqueue_from_preprocessing(stream)

    @property
    def uses_graphs(self) -> bool:
        """Whether frames are, or will be, launches of a graph."""
        return self._graphs.in_use

    def close(self) -> None:
        """Wait for work in progress, and free everything."""
        close_all(
            self._device.make_current,
            self.stream.synchronize,
            self._graphs.forget,
            self._context.close,
            self.memory.close,
            self._done.close,
            self.stream.close,
        )

    def _prepare(self, layout: FrameLayout) -> None:
        if layout is self.layout or layout == self.layout:
            return
        self._model.check_frame(layout.height, layout.width)
        # If memory is exhausted, there is no layout that the memory fits.
        self.layout = None
        self.memory.fit(layout)
        self._pack(layout)

    def _pack(self, layout: FrameLayout) -> None:
        self._graphs.forget()
        self.launches = FrameLaunches(self._kernels, self._model, self.memory, self._constants, layout)
        self.layout = layout

    def _grow(self, count: int) -> None:
        layout, self.layout = self.layout, None
        assert layout is not None
        results = self.memory.results
        arena, runs = (int(results[name][count]) for name in ("offset", "run_offset"))
        more = [need * _MORE_NUMERATOR // _MORE_DENOMINATOR for need in (arena, runs)]
        _log.info(
            "a frame's masks need %d words and %d runs: allocating more memory and running the frame again", arena, runs
        )
        self.memory.fit(layout, *more)
        self._pack(layout)
        self._point()

    def _copy(self, frame: CameraFrame) -> None:
        """Copy blocks of rows, uploading each block while the next is copied.

        One thread only: on a busy machine, a helper is one more thread that may lose its core in the middle.
        """
        copied = uploaded = 0
        for plane in frame.planes():
            rows = max(_BAND_BYTES * len(plane) // plane.size, 1)
            for row in range(0, len(plane), rows):
                part = plane[row : row + rows]
                np.copyto(self.memory.staging[copied : copied + part.size].reshape(part.shape), part)
                copied += part.size
                if copied - uploaded >= _BAND_BYTES // 2:
                    self._upload(self.memory.staging_address, uploaded, copied, self.stream)
                    uploaded = copied
        if uploaded < copied:
            self._upload(self.memory.staging_address, uploaded, copied, self.stream)

    def _take(self, frame: CameraFrame) -> None:
        try:
            arrays = [
                take_array(array, self._device, self.stream, dtype=np.uint8, contiguous=False)
                for array in (frame.pixels, frame.chroma)
                if array is not None
            ]
        except ShapeError as error:
            raise FrameError(str(error)) from error
        for array in arrays:
            if array.strides[1:] != contiguous_strides(array.shape[1:], np.uint8):
                raise FrameError(
                    f"a frame on the GPU may have gaps between rows only; this one has the shape {array.shape} and "
                    f"strides of {array.strides} bytes"
                )
        self._foreign = tuple(arrays)
        self._point()

    def _use(self, buffer: DeviceFrameBuffer) -> None:
        buffer.begin()
        self._buffer = buffer
        if buffer.planes:
            self._foreign = buffer.planes
            self._point()
        else:
            self._upload(buffer.address, 0, buffer.layout.num_bytes, self.stream)

    def _upload(self, address: int, first: int, end: int, stream: Stream) -> None:
        """Upload a range of bytes of a frame at a pinned address; nothing if the GPU reads them in place."""
        if not self._device.integrated:
            target = self.memory.arrays["frame"].pointer + first
            self._device.driver.call("cuMemcpyHtoDAsync", target, address + first, end - first, stream.handle)

    def _let_go(self) -> None:
        """Release foreign memory, which nothing reads any longer."""
        self._foreign = ()
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.end()

    def _point(self) -> None:
        if not self._foreign or self.layout is None:
            return
        pointers = [array.pointer for array in self._foreign]
        pitches = [array.strides[0] for array in self._foreign]
        if self.layout.format is PixelFormat.NV12 and len(self._foreign) == 1:
            pointers.append(pointers[0] + self.layout.height * pitches[0])
            pitches.append(pitches[0])
        self.launches.point_at(tuple(pointers), tuple(pitches))

    def _run(self) -> None:
        if self._foreign:
            self.launches.preprocess_elsewhere.enqueue(self.stream)
            self._graphs.run("from the network on", self._enqueue_network)
        else:
            self._graphs.run("from preprocessing on", self._enqueue_from_preprocessing)
        self._done.record(self.stream)

    def _enqueue_from_preprocessing(self, stream: Stream) -> None:
        self.launches.preprocess.enqueue(stream)
        self._enqueue_network(stream)

    def _enqueue_network(self, stream: Stream) -> None:
        self.enqueue_inference(stream)
        for launch in (*self.launches.detect, *self.launches.masks, *self.launches.rescoring):
            launch.enqueue(stream)
        self.enqueue_download(stream)


def _require_valid(status: int) -> None:
    if status & FrameStatus.NOT_FINITE:
        raise BackendError(
            "the network's outputs contain NaN or infinity. Usually a half-precision overflow or a damaged model: run "
            "the fp32 model on the same frame, and export again if it shows the same"
        )
    if status & FrameStatus.MASK_IOU_NOT_FINITE:
        raise BackendError(
            "the mask-IoU network predicts NaN or infinity: its weights are damaged. Export the checkpoint again, or "
            "disable re-scoring (--no-mask-rescoring, SegmenterOptions(mask_rescoring=False))"
        )
    # As an integer: the complement of an IntFlag has no unnamed bits.
    if rest := status & ~int(FrameStatus.ARENA_OVERFLOW | FrameStatus.RUN_OVERFLOW):
        raise BackendError(f"the kernels reject this frame (status {rest}); please report the model and the settings")
