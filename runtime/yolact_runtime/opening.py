"""From a path to a way for frames: which file of the bundle, on which backend, with which post-processing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_plugins.compile.cache import CubinCache
from yolact_runtime.backends import Backend, DeviceBackend, create_backend
from yolact_runtime.backends.engine_file import find_engine
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.backends.tensorrt import TARGETS, TensorRtBackend
from yolact_runtime.cpu.camera_frame import FrameLayout, PixelFormat
from yolact_runtime.cpu.postprocess import MaskIou, Postprocessor
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.errors import BackendError, BackendUnavailableError, NoEngineError
from yolact_runtime.frame_path import FramePath, HostPath
from yolact_runtime.model.bundle import (
    CPU_PRECISIONS,
    CUDA_PRECISIONS,
    ENGINE_ROLE,
    MANIFEST_NAME,
    NETWORK_ROLE,
    Bundle,
    mask_iou_file,
    open_bundle,
    read_manifest,
    require_precision,
)
from yolact_runtime.model.kernel_folder import bundle_kernels
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.network_outputs import check_output_types, require_float
from yolact_runtime.segmenter_options import SegmenterOptions

__all__ = ["OpenModel", "SharedNetwork", "frame_path", "open_model"]

_log = logging.getLogger(__name__)
_ENGINE_PRECISIONS = ("int8", "fp16", "fp32")
"""What a robot runs, best first: an INT8 network is in a bundle only if its accuracy was found to hold."""
_ORT = ("onnxruntime-cuda", "onnxruntime-cpu")
_PLANS = {".plan", ".engine"}


class SharedNetwork:
    """A network, and for YOLACT++ its mask-IoU network, in use by one or more segmenters; the last one closes it."""

    def __init__(self, network: Backend, mask_iou: Backend | None) -> None:
        self.network = network
        self.mask_iou = mask_iou
        self._lock = threading.Lock()
        self._users = 0

    def hold(self) -> None:
        """One more segmenter.

        Raises:
            BackendError: The last one closed it.
        """
        with self._lock:
            if self._users < 0:
                raise BackendError("the segmenter was closed; open the model again")
            self._users += 1

    def drop(self) -> None:
        """One less."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            self._users = -1
        self.network.close()
        if self.mask_iou is not None:
            self.mask_iou.close()


@dataclass(frozen=True)
class OpenModel:
    """A model on a backend.

    Attributes:
        manifest: With the precision that runs.
        shared: The network.
        folder: The bundle, where there is one: compiled kernels and the golden frame lie there.
        file: Of the network; None where backends were given instead of a path.
    """

    manifest: Manifest
    shared: SharedNetwork
    folder: Path | None = None
    file: Path | None = None


def open_model(path: Path | str | Bundle, backend: str, options: SegmenterOptions, precision: str | None) -> OpenModel:
    """Choose file and backend, and load them.

    Raises:
        BundleError, ManifestError: The model is missing, damaged, or not of this project.
        BackendUnavailableError: No backend can run here; the message says why for each.
        EngineMismatchError: There is an engine, for another machine.
        BackendError: The backend refuses the model.
        NoNetworkError: The bundle has nothing of that precision.
    """
    _require_precision(path, precision)
    files = _Files(path, precision)
    network = create_backend(backend, files.choose, options.num_threads)
    try:
        mask_iou = None
        if files.mask_iou is not None and options.mask_rescoring:
            mask_iou = _open_mask_iou(network, files.mask_iou, options.num_threads)
        manifest = files.manifest
        if isinstance(network, TensorRtBackend):
            # What the engine itself says counts, where it has room to say it.
            manifest = replace(network.manifest, precision=manifest.precision, artefacts=manifest.artefacts)
        if isinstance(network, OnnxRuntimeBackend):
            # An engine's tensors are looked at with the kernels that read them.
            check_output_types(network.outputs, manifest)
        return OpenModel(manifest, SharedNetwork(network, mask_iou), files.folder, files.network)
    except BaseException:
        network.close()
        raise


def _require_precision(path: Path | str | Bundle, precision: str | None) -> None:
    folder = path.path if isinstance(path, Bundle) else Path(path)
    folder = folder.parent if folder.name == MANIFEST_NAME else folder
    if precision is None or not (folder / MANIFEST_NAME).is_file():
        return
    require_precision(folder, read_manifest(folder).artefacts, precision, {NETWORK_ROLE, ENGINE_ROLE})


def frame_path(model: OpenModel, options: SegmenterOptions) -> FramePath:
    """A way for frames through a model; it is one more user of the network.

    Raises:
        UsageError: The kernels on the GPU cannot do what the options ask for.
        MissingCubinError, KernelCompileError, MissingDependencyError: There is no machine code for this GPU.
        CudaOutOfMemoryError: The GPU is full.
    """
    if options.bit_depth is not None:
        spec = replace(model.manifest.input, bit_depth=options.bit_depth)
        model = replace(model, manifest=replace(model.manifest, input=spec))
    shared, manifest, settings = model.shared, model.manifest, options.nms_settings(model.manifest)
    rescore = _rescorer(shared.mask_iou) if shared.mask_iou is not None and options.mask_rescoring else None
    shared.hold()
    try:
        network = shared.network
        if isinstance(network, DeviceBackend) and not options.cpu_postprocessing:
            return _device_path(model, network, options, rescore)
        if isinstance(network, DeviceBackend):
            _log.warning(
                "%s: the network's outputs are downloaded and post-processed on the CPU, as asked", network.name
            )
        postprocess = Postprocessor.of(manifest, settings, options.crop_margin, rescore)
        return HostPath(manifest, network, postprocess, shared.drop)
    except BaseException:
        shared.drop()
        raise


def _device_path(
    model: OpenModel, network: DeviceBackend, options: SegmenterOptions, rescore: MaskIou | None
) -> DevicePath:
    manifest = model.manifest
    frame_model = FrameModel.of(
        manifest, options.nms_settings(manifest), options.crop_margin, rescore is not None, network.tensors
    )
    network.device.make_current()
    cache = None
    if model.folder is not None:
        cache = CubinCache(precompiled=bundle_kernels(model.folder), bundle=model.folder)
    kernels = DeviceKernels(network.device, cache)
    path = DevicePath(network, frame_model, kernels, options.frames_in_flight, rescore)
    try:
        if options.frame_size is not None:
            path.warm_up(FrameLayout(*options.frame_size, PixelFormat.BGR))
    except BaseException:
        path.close()
        raise
    path.on_close = model.shared.drop
    return path


class _Files:
    """Which file of a model each backend runs; what was chosen last is what is open."""

    def __init__(self, path: Path | str | Bundle, precision: str | None) -> None:
        self._path = path
        self._precision = precision
        self.manifest: Manifest
        self.network: Path | None = None
        self.mask_iou: Path | None = None
        self.folder: Path | None = None

    def choose(self, backend: str) -> Path:
        """The file for a backend.

        Raises:
            BackendUnavailableError: The model has none for it.
        """
        if backend in TARGETS:
            return self._choose_engine(backend, TARGETS[backend])
        if not isinstance(self._path, Bundle) and Path(self._path).suffix in _PLANS:
            raise BackendUnavailableError(
                f"{backend}: {self._path} is an engine, which ONNX Runtime does not run; name its bundle folder or an "
                f".onnx file"
            )
        preferred = CUDA_PRECISIONS if backend == "onnxruntime-cuda" else CPU_PRECISIONS
        bundle = self._path
        if not isinstance(bundle, Bundle):
            bundle = open_bundle(bundle, self._precision, preferred)
        self.manifest, self.network, self.mask_iou = bundle.manifest, bundle.network, bundle.mask_iou
        self.folder = bundle.path if bundle.path.is_dir() else None
        return bundle.network

    def _choose_engine(self, backend: str, target: str) -> Path:
        path = self._path.path if isinstance(self._path, Bundle) else Path(self._path)
        folder = path.parent if path.name == MANIFEST_NAME or path.suffix in _PLANS else path
        if not folder.is_dir():
            raise NoEngineError(f"{backend}: engines are built into bundle folders, and {path} is none")
        file = find_engine(path, "", target) if path.suffix in _PLANS else None
        if file is None:
            precision = self._engine_precision(backend, target, folder)
            file = find_engine(folder, precision, target)
        if file.target != target:
            raise NoEngineError(f"{backend}: {file.path} was built for {file.target}")
        self.manifest, self.network, self.folder = file.manifest, file.path, folder
        self.mask_iou = mask_iou_file(folder, file.manifest)
        return file.path

    def _engine_precision(self, backend: str, target: str, folder: Path) -> str:
        there = [
            artefact.precision
            for artefact in read_manifest(folder).artefacts.values()
            if artefact.role == ENGINE_ROLE and artefact.build.get("target", "tensorrt") == target
        ]
        wanted: Sequence[str] = _ENGINE_PRECISIONS if self._precision is None else (self._precision,)
        for precision in wanted:
            if precision in there:
                return precision
        option = "" if target == "tensorrt" else f" --target {target}"
        raise NoEngineError(
            f"{backend}: {folder} has no engine for it{f' in {self._precision}' if self._precision else ''}; build one "
            f"on this machine: yolact-export {folder} --engine{option}"
        )


def _open_mask_iou(network: Backend, model: Path, num_threads: int) -> Backend:
    """On the same backend; beside an engine on ONNX Runtime, because the number of masks changes."""
    if network.name not in TARGETS:
        return create_backend(network.name, model, num_threads)
    reasons = []
    for name in _ORT:
        try:
            return create_backend(name, model, num_threads)
        except BackendUnavailableError as error:
            reasons.append(f"\n  {error}")
    raise BackendUnavailableError(
        f"{model.name} re-scores masks in ONNX Runtime, also beside an engine, and that cannot run here; install it, "
        f"or leave re-scoring out (--no-mask-rescoring, SegmenterOptions(mask_rescoring=False)):{''.join(reasons)}"
    )


def _rescorer(backend: Backend) -> MaskIou:
    def predict(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        outputs = backend.infer(masks)
        if len(outputs) != 1:
            raise BackendError(f"the mask-IoU network should have one output, found {', '.join(outputs)}")
        ((name, predicted),) = outputs.items()
        require_float(name, str(predicted.dtype))
        return predicted.astype(np.float32, copy=False)

    return predict
