"""The segmenter: an open model. Frame in, instances out."""

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

    With TensorRT, and with ONNX Runtime on CUDA beside ``cuda-bindings``, the whole way of a frame is on the GPU; else
    what surrounds the network is on the CPU: :attr:`postprocessing` says which, and so does ``repr``.
    Thread-safe: calls share the model and nothing else, and every result belongs to its caller.

    Attributes:
        manifest: What the model states.
        options: As given.
        frame_path: The way of a frame in two halves, for benchmarks and for programs with a schedule of their own.
    """

    def __init__(
        self,
        manifest: Manifest,
        network: Backend,
        mask_iou: Backend | MaskRescoring | None,
        options: SegmenterOptions,
    ) -> None:
        """Take ownership of open backends; most callers want :meth:`open`."""
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
            backend: ``"auto"`` or a key of :data:`yolact_runtime.backends.BACKENDS`.
            options: Thresholds and methods; None means the defaults.
            precision: Which network of a folder, such as ``"fp32"``; None takes what the backend runs best: engines
                ``"int8"``, ``"fp16"``, ``"fp32"`` in this order; ``"int8-cpu"`` before ``"fp32"`` in ONNX Runtime on
                the CPU, ``"fp16"`` before ``"fp32"`` on CUDA.
            self_test: Run :meth:`self_test` before anything else, and open nothing that fails it.
            verify_key: Ed25519 public keys, PEM: everything that is loaded comes from a bundle that one of them signed,
                or nothing is. None takes those of the environment variable ``YOLACT_REQUIRE_SIGNATURE``; where there
                are none either, a signature is not looked at, and a signed bundle says so once in the log.
            trust_engine: Run a ``.plan`` that lies in no bundle by the manifest that it carries. It is executable code,
                and nothing but the caller vouches for it; never together with `verify_key`.

        Raises:
            BundleError, ManifestError: The model is missing, damaged, or not of this project.
            SignatureError: A signature was asked for, and is missing or fits none of the keys; or the manifest of a
                signed bundle is not the one that was signed.
            BackendUnavailableError: No backend can run here; the message says why for each.
            EngineMismatchError: The engine was built for another machine.
            MissingCubinError, MissingDependencyError: The GPU's kernels are not compiled and cannot be, here; or a
                signature is to be verified without the package ``cryptography``.
            UsageError: The GPU's post-processing cannot do what the options ask for, or the bundle has nothing of that
                precision.
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
        """Compare what this model makes of its bundle's golden frame, here and now, with what it made at export.

        It takes about the time of two frames, on the GPU with memory for one more frame meanwhile. Thresholds of
        `options` are set aside; the backend, the network and the kernels are those of this segmenter.

        Raises:
            SelfTestError: It differs by more than this backend may.
            NoGoldenFrameError: The bundle has none, or it was opened without its folder.
            BundleError: The golden frame is damaged.
            BackendError: This segmenter is closed.
        """
        if self._closed:
            raise BackendError(_CLOSED)
        return run_self_test(self._model, self.options)

    def share(self, options: SegmenterOptions | None = None) -> Segmenter:
        """Another segmenter on the same engine, with options and frame memory of its own; weights are not copied.

        Each is closed by itself, in any order; the last one frees the engine.

        Raises:
            BackendError: This segmenter is closed.
            UsageError, CudaOutOfMemoryError: See :meth:`open`.
        """
        if self._closed:
            raise BackendError(_CLOSED)
        return self._of(self._model, options or self.options)

    @property
    def backend_name(self) -> str:
        """Of the backend in use."""
        return self._model.shared.network.name

    @property
    def network(self) -> Backend:
        """The backend in use; it stays the segmenter's, and those of :meth:`share`."""
        return self._model.shared.network

    @property
    def mask_rescoring(self) -> MaskRescoring | None:
        """The mask-IoU network of a YOLACT++ model; it stays the segmenter's. None where masks are not re-scored."""
        return self._model.shared.mask_iou if self.options.mask_rescoring else None

    @property
    def network_file(self) -> Path | None:
        """What the backend loaded; None where it was given an open backend."""
        return self._model.file

    @property
    def verified_by(self) -> str | None:
        """Fingerprint of the key whose signature of the bundle was verified; None where none was looked at."""
        return self._model.verified_by

    @property
    def postprocessing(self) -> str:
        """``"gpu"`` or ``"cpu"``: where boxes and masks are made."""
        return "gpu" if isinstance(self.frame_path, DevicePath) else "cpu"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Indexed by ``class_id``."""
        return self.manifest.class_names

    def compare_manifests(self) -> None:
        """Compare the bundle's manifest with the one inside its network, which costs nothing; see :meth:`self_test`.

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
        """Lend memory in which a camera writes frames, so that nothing is copied on the host.

        Give the buffer itself to a call, :meth:`stream` or :meth:`on_device`: with an engine the GPU fetches the frame
        from there, or reads it there where CPU and GPU share their memory. On a CPU it is plain memory, so that the
        same program runs. Its arrays may be the target of ``cv2.VideoCapture.read(image=buffer.pixels)``,
        ``numpy.copyto`` or a copy of any other library; given as an array, they are copied like any other. A buffer
        takes any number of frames.

        When the next frame may be written there: when the result of the one before is there. A call, and `on_device`,
        return with it. In a stream, when the result was delivered: a source that uses ``options.frames_in_flight``
        buffers in turn is asked for a frame when the one that was in its buffer has been delivered; one that writes
        ahead of being asked needs one more. Who writes earlier spoils pixels, and nothing else; a buffer that is given
        again while its frame before is on its way is refused.

        Args:
            height: Rows of the frames.
            width: Columns of the frames; even for YUYV.
            pixel_format: Of the frames.
            yuv: Matrix of NV12 and YUYV; see :mod:`yolact_plugins.colour`.

        Returns:
            A context manager; black. It is closed with this segmenter at the latest. Arrays of it that somebody keeps
            for longer stay valid, and their memory is freed with the last of them.

        Raises:
            FrameError: There are no frames of that size or format, or `yuv` is no matrix.
            BackendError: This segmenter is closed.
            CudaOutOfMemoryError: There is not that much pinned memory.
        """
        return self.frame_path.frame_buffer(buffer_layout(height, width, pixel_format, yuv))

    def __call__(self, frame: npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any) -> Instances:
        """Find the instances in one frame.

        Args:
            frame: ``(H, W, 3)`` uint8, blue first; grayscale ``(H, W)`` and BGRA are accepted. Only read. Also uint16
                where the options or the model state its ``bit_depth``. With an engine also an array on the GPU,
                ``(H, W, 3)`` or ``(H, W, 4)``, of anything that has DLPack or the CUDA array interface: it is used
                where it is. Other formats: :class:`yolact_runtime.CameraFrame`. Or what :meth:`frame_buffer` gave.

        Returns:
            Instances in the pixels of the frame, best first.

        Raises:
            FrameError: `frame` is not an image, or a buffer whose frame before is not finished.
            BackendError: The backend failed, or the network's outputs are not finite; the buffer is closed.
        """
        return self.frame_path.collect(self.frame_path.start(frame))

    def stream(
        self, frames: Iterable[npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any], timeout_s: float | None = None
    ) -> FrameStream:
        """Instances of each frame, in order, while the next frames are already on their way.

        `frames` is iterated in a thread of its own, and a frame is asked for only when it can be begun with at once, so
        that a camera's frame is fresh: at most ``options.frames_in_flight`` are begun and not delivered. A frame in
        host memory may be changed once the next one is asked for; one on the GPU, or in a :meth:`frame_buffer`, must
        stay until its result is there.
        Whoever stops before the end closes the stream (``with segmenter.stream(...) as results``) before the source of
        the frames; :meth:`FrameStream.close` may be called from any thread, and wakes a consumer that waits.

        Args:
            frames: The source.
            timeout_s: Longest time that the source may take for a frame, in seconds; None waits for ever.

        Returns:
            An iterator and context manager.

        Raises:
            UsageError: `timeout_s` is not above 0, or more than a day.
            SourceTimeoutError: From ``next()``: the source gave no frame for `timeout_s`.
            Exception: From ``next()``: whatever `frames` raises, after the results of the frames before.
            FrameError, BackendError: From ``next()``, as for a single frame; the stream ends there. Also where this
                segmenter is closed meanwhile.
        """
        stream = FrameStream(self.frame_path, frames, self.options.frames_in_flight, timeout_s)
        with self._streams_lock:
            self._streams.add(stream)
        if self._closed:
            stream.end(BackendError(_CLOSED))
        return stream

    def on_device(self, frame: npt.NDArray[np.uint8] | CameraFrame | FrameBuffer | Any) -> DeviceInstances:
        """As a call, with results that stay on the GPU. Close them, or use them as a context manager.

        Raises:
            BackendError: The post-processing of this segmenter is on the CPU. See a call for more.
        """
        if not isinstance(self.frame_path, DevicePath):
            raise BackendError(
                f"on_device needs an engine, or ONNX Runtime on CUDA, and the GPU's post-processing; this segmenter "
                f"runs on {self.backend_name} with post-processing on the CPU"
            )
        return self.frame_path.collect_on_device(self.frame_path.start(frame))

    def close(self) -> None:
        """Free the backends; may be called again, and from any thread. A later frame raises BackendError.

        Streams end: whoever waits for a result of one gets a BackendError. A frame that another thread waits for in a
        call is finished first, and its memory is freed then. After the loss of the GPU's context what can be freed is
        freed, and nothing is raised: the frame that met the loss has said it.

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
        manifest, where = self.manifest, "closed" if self._closed else f"post-processing on the {self.postprocessing}"
        return f"<Segmenter: {manifest.name} ({manifest.precision}) on {self.backend_name}, {where}>"

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
