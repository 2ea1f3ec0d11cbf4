"""The segmenter: an open model that takes frames and returns instances."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.colour import BT601, YuvMatrix
from yolact_plugins.driver.ownership import close_after_failure
from yolact_runtime.backends import Backend
from yolact_runtime.cpu.camera_frame import CameraFrame, PixelFormat
from yolact_runtime.cpu.frame_buffer import FrameBuffer, buffer_layout
from yolact_runtime.cuda.device_instances import DeviceInstances
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import BackendError
from yolact_runtime.frame_stream import FrameStream
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.bundle import Bundle, folder_of
from yolact_runtime.model.bundle_exchange import read_whole
from yolact_runtime.model.bundle_folder import WATCHED
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.signing_keys import key_paths
from yolact_runtime.opening import OpenModel, SharedNetwork, frame_path, open_model
from yolact_runtime.segmenter_options import SegmenterOptions
from yolact_runtime.self_test import SelfTest, compare_manifests, run_self_test

__all__ = ["Segmenter", "SegmenterOptions"]

_CLOSED = "the segmenter was closed; open the model again"


class Segmenter:
    """An open model on a backend. Use it as a context manager, or call :meth:`close`.

    With TensorRT, and with ONNX Runtime on CUDA beside ``cuda-bindings``, frames are prepared and masks computed on the
    GPU as well; otherwise the CPU does what surrounds the network. :attr:`postprocessing` says which, and so does
    ``repr``. Thread-safe: calls share the model and nothing else, and every result belongs to its caller.

    Example:
        ```python
        from yolact_runtime import Segmenter, SegmenterOptions

        with Segmenter.open("base.bundle", options=SegmenterOptions(min_confidence=0.3)) as segmenter:
            instances = segmenter(frame)  # (H, W, 3) uint8, blue first
            for instance in instances:
                print(instance.class_name, instance.confidence, instance.mask.area())
        ```

    Attributes:
        manifest: The manifest of the model, with the precision in use.
        options: The options that the segmenter was opened with.
        frame_path: The frame pipeline as two calls, ``start`` and ``collect``, for benchmarks and for programs with a
            schedule of their own.
    """

    def __init__(
        self,
        manifest: Manifest,
        network: Backend,
        mask_iou: Backend | MaskRescoring | None,
        options: SegmenterOptions,
    ) -> None:
        """Take ownership of open backends. Most callers want :meth:`open`.

        Args:
            manifest: The manifest of the model.
            network: An open backend with the model's network; closed with the segmenter.
            mask_iou: An open backend with the mask-IoU network of YOLACT++, or None.
            options: Thresholds and methods.
        """
        if mask_iou is not None and not isinstance(mask_iou, MaskRescoring):
            mask_iou = MaskRescoring.of_backend(mask_iou, manifest)
        self._begin(OpenModel(manifest, SharedNetwork(network, mask_iou)), options)

    @classmethod
    def open(
        cls,
        path: Path | str | Bundle,
        backend: str = "auto",
        options: SegmenterOptions | None = None,
        precision: str | None = None,
        self_test: bool = False,
        verify_key: Path | str | Sequence[Path | str] | None = None,
        trust_engine: bool = False,
    ) -> Segmenter:
        """Open a bundle folder or a model file.

        Args:
            path: A bundle folder, an ``.onnx`` file, a ``.plan`` inside its bundle, or an opened bundle.
            backend: Name of a backend, or ``"auto"``, which takes the first one that can run the model here. Names are
                the keys of ``yolact_runtime.backends.BACKENDS``: ``"tensorrt"``, ``"tensorrt-rtx"``,
                ``"onnxruntime-cuda"``, ``"onnxruntime-cpu"``.
            options: Thresholds and methods; None means the defaults.
            precision: Precision of the network, such as ``"fp32"``. None takes what the backend runs best: engines
                ``"int8"``, ``"fp16"``, ``"fp32"`` in this order; ``"int8-cpu"`` before ``"fp32"`` in ONNX Runtime on
                the CPU, ``"fp16"`` before ``"fp32"`` on CUDA.
            self_test: Run :meth:`self_test` first, and refuse a model that fails it.
            verify_key: Files of Ed25519 public keys, PEM. Everything that is loaded must come from a bundle that one of
                them signed. None takes the keys of the environment variable ``YOLACT_REQUIRE_SIGNATURE``; without any
                key signatures are not checked, and a signed bundle logs one warning.
            trust_engine: Run a ``.plan`` outside a bundle by the manifest that it carries. It is executable code whose
                origin only the caller knows; not allowed together with `verify_key`.

        Returns:
            A segmenter, which the caller closes.

        Raises:
            BundleError, ManifestError: The model is missing, damaged, or no bundle of this project.
            NoNetworkError: The bundle has no network in this precision; a BundleError and a UsageError.
            SignatureError: A signature is required, and is missing or by none of the keys; or the manifest of a signed
                bundle was changed.
            BackendUnavailableError: No backend can run here; the message says why for each.
            EngineMismatchError: The engine was built for another machine.
            MissingCubinError: The GPU's kernels are not compiled, and cannot be compiled here.
            MissingDependencyError: A package is not installed: the inference library, ``cuda-bindings``, or
                ``cryptography`` where a signature is verified.
            UsageError: The GPU's post-processing cannot do what the options ask for.
            CudaOutOfMemoryError: The model and the frames in flight do not fit into the GPU's memory.
            BackendError: The backend refuses the model.
            SelfTestError: See :meth:`self_test`.
        """
        options = options or SegmenterOptions()
        keys, settings = key_paths(verify_key), options

        def load() -> Segmenter:
            return cls._of(open_model(path, backend, settings, precision, keys, trust_engine), settings)

        # The kernels and their index come later than the network, and belong to the same bundle.
        segmenter = read_whole(folder_of(path.path if isinstance(path, Bundle) else Path(path)), WATCHED, load)
        if self_test:
            try:
                segmenter.self_test()
            except BaseException:
                close_after_failure(segmenter.close)
                raise
        return segmenter

    def self_test(self) -> SelfTest:
        """Run the bundle's golden frame, and compare the results with those of the export.

        This takes about the time of two frames and, on the GPU, memory for one more frame. It uses the backend, network
        and kernels of this segmenter; thresholds in :attr:`options` are ignored.

        Returns:
            The differences that were found, all within their limits.

        Raises:
            SelfTestError: Results differ by more than is allowed for this backend.
            NoGoldenFrameError: The bundle has no golden frame, or the model was opened without its folder.
            BundleError: The golden frame is damaged.
            BackendError: This segmenter is closed.
        """
        if self._closed:
            raise BackendError(_CLOSED)
        return run_self_test(self._model, self.options)

    def share(self, options: SegmenterOptions | None = None) -> Segmenter:
        """Return another segmenter on the same network, with its own options and frame memory; weights are not copied.

        Each segmenter is closed by itself, in any order; the last one frees the network.

        Args:
            options: Thresholds and methods; None takes those of this segmenter.

        Raises:
            BackendError: This segmenter is closed.
            UsageError, CudaOutOfMemoryError: See :meth:`open`.
        """
        if self._closed:
            raise BackendError(_CLOSED)
        return self._of(self._model, options or self.options)

    @property
    def backend_name(self) -> str:
        """Name of the backend in use, such as ``"onnxruntime-cpu"``."""
        return self._model.shared.network.name

    @property
    def network(self) -> Backend:
        """The backend in use. The segmenter, and those of :meth:`share`, own it: do not close it."""
        return self._model.shared.network

    @property
    def mask_rescoring(self) -> MaskRescoring | None:
        """The mask-IoU network of a YOLACT++ model, owned by the segmenter; None if masks are not re-scored."""
        return self._model.shared.mask_iou if self.options.mask_rescoring else None

    @property
    def network_file(self) -> Path | None:
        """File that the backend loaded; None for a segmenter made from an open backend."""
        return self._model.file

    @property
    def verified_by(self) -> str | None:
        """Fingerprint of the key whose signature of the bundle was verified; None if no signature was checked."""
        return self._model.verified_by

    @property
    def postprocessing(self) -> str:
        """Processor that computes boxes and masks: ``"gpu"`` or ``"cpu"``."""
        return "gpu" if isinstance(self.frame_path, DevicePath) else "cpu"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, indexed by ``class_id``; :attr:`Instances.class_names` is the same tuple."""
        return self.manifest.class_names

    def compare_manifests(self) -> None:
        """Compare the bundle's manifest with the one inside its network; part of :meth:`self_test`, and cheap.

        Raises:
            SelfTestError: They differ in the input or in the priors.
            NoGoldenFrameError: This segmenter was opened without a bundle.
        """
        compare_manifests(self._model)

    def frame_buffer(
        self,
        height: int,
        width: int,
        pixel_format: PixelFormat | str = PixelFormat.BGR,
        yuv: YuvMatrix = BT601,
    ) -> FrameBuffer:
        """Allocate memory into which a camera writes frames, so that the host copies nothing.

        Pass the buffer itself to a call, :meth:`stream` or :meth:`on_device`: the GPU then fetches the frame from
        there, or reads it in place where CPU and GPU share their memory. On a CPU it is plain memory, and the same
        program runs. Its arrays may be the target of ``cv2.VideoCapture.read(image=buffer.pixels)``, ``numpy.copyto``
        or a copy by any other library. An array of it that is passed in place of the buffer is copied like any other.
        A buffer takes any number of frames.

        The next frame may be written once the result of the last one has arrived. A call and `on_device` return with
        it. A stream asks for a frame when there is room: a source with ``options.frames_in_flight`` buffers in rotation
        is asked for the next frame of a buffer only after the result of its last one was delivered; a source that
        writes before it is asked needs one more buffer. Writing too early spoils pixels and nothing else; passing a
        buffer again whose frame is still in flight is refused.

        Args:
            height: Rows of the frames, pixels.
            width: Columns of the frames, pixels; even for YUYV.
            pixel_format: Pixel format of the frames.
            yuv: Matrix of NV12 and YUYV; see :mod:`yolact_plugins.colour`.

        Returns:
            A buffer with zeros in it; a context manager. This segmenter closes it when it is closed itself. Arrays of
            the buffer stay valid after that, and their memory is freed with the last of them.

        Raises:
            FrameError: There are no frames of that size or format, or `yuv` is not a matrix.
            BackendError: This segmenter is closed.
            CudaOutOfMemoryError: Not enough memory can be pinned.
        """
        return self.frame_path.frame_buffer(buffer_layout(height, width, pixel_format, yuv))

    def __call__(self, frame: npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any) -> Instances:
        """Find the instances in one frame.

        Args:
            frame: Image ``(H, W, 3)`` uint8, blue first, of any size; ``(H, W)`` grayscale and ``(H, W, 4)`` BGRA as
                well. It is only read, and may be changed when the call returns. uint16 is accepted if the options or
                the model state a ``bit_depth``. With post-processing on the GPU, also an array there, ``(H, W, 3)`` or
                ``(H, W, 4)``, with DLPack or the CUDA array interface, which is not copied. For other pixel formats use
                a :class:`CameraFrame`; a buffer of :meth:`frame_buffer` is taken as well.

        Returns:
            Instances in pixels of the frame, best first; the caller owns them.

        Raises:
            FrameError: `frame` is not an image, or a buffer whose last frame is not finished.
            BackendError: The backend failed, the network's outputs are not finite, or the buffer or this segmenter is
                closed.
            CudaError: A call of the CUDA driver failed.
        """
        return self.frame_path.collect(self.frame_path.start(frame))

    def stream(
        self, frames: Iterable[npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any], timeout_s: float | None = None
    ) -> FrameStream:
        """Return the instances of each frame, in order, while the next frames are already being processed.

        `frames` is iterated in a thread of its own. It is asked for a frame only when work on it can begin at once, so
        that a camera's frame is fresh: at most ``options.frames_in_flight`` frames are started and not yet delivered. A
        frame in host memory may be changed once the next one is asked for; a frame on the GPU, or in a buffer of
        :meth:`frame_buffer`, must stay unchanged until its result is delivered.

        A loop that may end early closes the stream before the source of the frames: use
        ``with segmenter.stream(...) as results``. :meth:`FrameStream.close` may be called from any thread, and wakes a
        consumer that waits.

        Args:
            frames: The source: an iterable of frames as :meth:`__call__` takes them.
            timeout_s: Longest time that the source may take for a frame, in seconds; None waits for ever.

        Returns:
            An iterator of :class:`Instances`, and a context manager.

        Raises:
            UsageError: `timeout_s` is not above 0, or more than a day.
            SourceTimeoutError: From ``next()``: the source gave no frame for `timeout_s`.
            Exception: From ``next()``: whatever `frames` raises, after the results of the frames before.
            FrameError, BackendError: From ``next()``, as for a single frame, or because this segmenter was closed
                meanwhile; the stream ends with it.
        """
        stream = FrameStream(self.frame_path, frames, self.options.frames_in_flight, timeout_s)
        with self._streams_lock:
            self._streams.add(stream)
        if self._closed:
            stream.end(BackendError(_CLOSED))
        return stream

    def on_device(self, frame: npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any) -> DeviceInstances:
        """Find the instances in one frame, and leave the results in the GPU's memory.

        Args:
            frame: A frame as :meth:`__call__` takes it.

        Returns:
            Instances on the GPU. Close them, or use them as a context manager: they keep the memory of one frame in
            flight.

        Raises:
            BackendError: The post-processing of this segmenter is on the CPU; or as for a call.
            FrameError, CudaError: As for a call.
        """
        if not isinstance(self.frame_path, DevicePath):
            raise BackendError(
                f"on_device needs an engine, or ONNX Runtime on CUDA, and the GPU's post-processing; this segmenter "
                f"runs on {self.backend_name} with post-processing on the CPU"
            )
        return self.frame_path.collect_on_device(self.frame_path.start(frame))

    def close(self) -> None:
        """Free the network and all memory. May be called again, and from any thread; a later frame is a BackendError.

        Streams end, and a consumer that waits for a result gets a BackendError. A frame that another thread waits for
        in a call is finished first, and its memory is freed after that. If the GPU's context is lost, what can be freed
        is freed and nothing is raised: the frame that met the loss has raised it.

        Raises:
            CudaError: Something could not be freed; all else was.
        """
        self._closed = True
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.end(BackendError(_CLOSED))
        self.frame_path.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else f"post-processing on the {self.postprocessing}"
        return f"<Segmenter: {self.manifest.summary(self.backend_name)}, {where}>"

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def _of(cls, model: OpenModel, options: SegmenterOptions) -> Segmenter:
        segmenter = cls.__new__(cls)
        segmenter._begin(model, options)
        return segmenter

    def _begin(self, model: OpenModel, options: SegmenterOptions) -> None:
        self.manifest = model.manifest
        self.options = options
        self._model = model
        self._closed = False
        self._streams: weakref.WeakSet[FrameStream] = weakref.WeakSet()
        self._streams_lock = threading.RLock()
        self.frame_path = frame_path(model, options)
