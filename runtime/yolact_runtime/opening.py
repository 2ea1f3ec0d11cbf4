"""Resolution of a model path to a frame pipeline: file of the bundle, backend and post-processing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.driver.ownership import close_after_failure, close_all
from yolact_plugins.errors import KernelCompileError, MissingCubinError, MissingDependencyError
from yolact_runtime.backends import Backend, DeviceBackend, create_backend
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.backends.tensorrt import TensorRtBackend
from yolact_runtime.cpu.camera_frame import FrameLayout, PixelFormat
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.errors import BackendError, BundleError, UsageError
from yolact_runtime.frame_path import FramePath, HostPath
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.model.bundle import Bundle
from yolact_runtime.model.kernel_folder import bundle_kernels
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.network_outputs import (
    OutputType,
    check_declared_dtypes,
    check_input_type,
    check_output_types,
)
from yolact_runtime.model.signing_keys import REQUIRE_VARIABLE
from yolact_runtime.model_files import ModelFiles, Origin
from yolact_runtime.segmenter_options import SegmenterOptions

__all__ = ["OpenModel", "SharedNetwork", "frame_path", "open_model"]

_log = logging.getLogger(__name__)


class SharedNetwork:
    """A network, and for YOLACT++ its mask-IoU network, in use by one or more segmenters; the last one closes it."""

    def __init__(self, network: Backend, mask_iou: MaskRescoring | None) -> None:
        self.network = network
        self.mask_iou = mask_iou
        self._lock = threading.Lock()
        self._users = 0

    def hold(self) -> None:
        """Add a segmenter.

        Raises:
            BackendError: The last segmenter has closed it.
        """
        with self._lock:
            if self._users < 0:
                raise BackendError("the segmenter was closed; open the model again")
            self._users += 1

    def drop(self) -> None:
        """Remove a segmenter."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            self._users = -1
        close_all(self.network.close, *([] if self.mask_iou is None else [self.mask_iou.close]))


@dataclass(frozen=True)
class OpenModel:
    """A model on a backend.

    Attributes:
        manifest: Manifest with the precision that runs.
        shared: The loaded network, shared by segmenters.
        origin: The bundle folder, if any, with compiled kernels and the golden frame.
        file: File of the network; None if backends were passed instead of a path.
        verified_by: Fingerprint of the key whose signature covers all of it; None if no signature was checked.
    """

    manifest: Manifest
    shared: SharedNetwork
    origin: Origin | None = None
    file: Path | None = None
    verified_by: str | None = None

    @property
    def folder(self) -> Path | None:
        """Folder of the bundle, if there is one."""
        return None if self.origin is None else self.origin.folder


def open_model(
    path: Path | str | Bundle,
    backend: str,
    options: SegmenterOptions,
    precision: str | None,
    keys: Sequence[Path] = (),
    trust_engine: bool = False,
) -> OpenModel:
    """Choose file and backend, and load them.

    Args:
        path: Path of the model.
        backend: Name of a backend, or ``"auto"``.
        options: Options of the segmenter.
        precision: Precision of the network; None takes the best one for the backend.
        keys: Ed25519 public keys (PEM files), one of which must have signed the bundle that all of it comes from. If
            there are none, signatures are not checked.
        trust_engine: Whether to run a plan that no bundle lists, with the manifest that it contains.

    Raises:
        BundleError, ManifestError: The model is missing, damaged, or not of this project.
        SignatureError: Keys were given, and not all of it comes from a bundle that one of them signed.
        BackendUnavailableError: No backend can run here; the message lists the reason for each.
        EngineMismatchError: There is an engine, but for another machine.
        BackendError: The backend rejects the model.
        NoNetworkError: The bundle has no network of that precision.
        UsageError: An engine is to be trusted, and signatures are to be verified.
    """
    if trust_engine and keys:
        raise UsageError(
            f"trusting an engine and requiring a signature contradict each other: leave out "
            f"trust_engine (--trust-engine), or verify_key (--verify-key, {REQUIRE_VARIABLE})"
        )
    with ModelFiles(path, precision, keys, trust_engine) as files:
        network = create_backend(backend, files.choose, options.num_threads)
        mask_iou = None
        try:
            manifest = _manifest_of(network, files, options)
            # Before anything is allocated in the size that the manifest states.
            _check_network(network, manifest, is_of_a_file=True)
            if files.mask_iou is not None:
                # Even if it is disabled: another segmenter on the same network may use it.
                mask_iou = MaskRescoring(files.mask_iou, network.name, options.num_threads, manifest)
                if options.mask_rescoring:
                    _open_rescoring(mask_iou, network, options)
            return OpenModel(manifest, SharedNetwork(network, mask_iou), files.origin(), files.file, files.verified_by)
        except BaseException:
            if mask_iou is not None:
                close_after_failure(mask_iou.close)
            close_after_failure(network.close)
            raise


def _manifest_of(network: Backend, files: ModelFiles, options: SegmenterOptions) -> Manifest:
    manifest = files.manifest
    if isinstance(network, TensorRtBackend):
        # The manifest inside the engine takes precedence, if it contains one.
        inside = network.manifest
        if manifest is not None:
            _require_same_dtypes(files, manifest, inside)
            return replace(inside, precision=manifest.precision, artefacts=manifest.artefacts)
        if inside.mask_rescoring and options.mask_rescoring:
            raise BundleError(
                f"{files.file} is the engine of a YOLACT++ model that re-scores masks with a second network, which an "
                f"engine does not contain: open its bundle folder, or disable re-scoring (--no-mask-rescoring)"
            )
        return inside
    if manifest is None:
        raise BackendError(f"{network.name}: {files.file} has no manifest")
    return manifest


def _require_same_dtypes(files: ModelFiles, manifest: Manifest, inside: Manifest) -> None:
    """Compare the bundle's entry of an engine with the manifest inside the engine."""
    for field in ("input", "outputs"):
        listed, said = getattr(manifest.dtypes, field), getattr(inside.dtypes, field)
        if listed != said:
            raise BundleError(
                f"{files.file}: dtypes.{field} is {listed} in the bundle's manifest, {said} in the engine itself; copy "
                f"the bundle again, or build the engine again: yolact-export BUNDLE --engine"
            )


def _check_network(network: Backend, manifest: Manifest, is_of_a_file: bool = False) -> None:
    """Compare the tensors that a network declares with the manifest.

    Args:
        network: The network.
        manifest: Manifest of the model.
        is_of_a_file: Whether it was loaded from the file whose dtypes the manifest states; a backend passed by the
            caller may differ.

    Raises:
        OutputError: The declarations differ.
    """
    if isinstance(network, OnnxRuntimeBackend):
        inputs, outputs = network.inputs, network.outputs
    elif isinstance(network, DeviceBackend):
        types = {tensor.name: OutputType(str(tensor.dtype), tensor.shape) for tensor in network.tensors}
        inputs = {tensor.name: types.pop(tensor.name) for tensor in network.tensors if tensor.is_input}
        outputs = types
    else:
        return
    check_input_type(inputs, manifest)
    check_output_types(outputs, manifest)
    if is_of_a_file:
        check_declared_dtypes(inputs, outputs, manifest)


def frame_path(model: OpenModel, options: SegmenterOptions) -> FramePath:
    """Create a frame pipeline for a model; it is one more user of the network.

    Raises:
        UsageError: The GPU's kernels do not support the options.
        MissingCubinError, KernelCompileError, MissingDependencyError: There is no machine code for this GPU.
        CudaOutOfMemoryError: GPU memory is exhausted.
    """
    if options.bit_depth is not None:
        spec = replace(model.manifest.input, bit_depth=options.bit_depth)
        model = replace(model, manifest=replace(model.manifest, input=spec))
    shared, manifest, settings = model.shared, model.manifest, options.nms_settings(model.manifest)
    rescoring = shared.mask_iou if options.mask_rescoring else None
    shared.hold()
    try:
        network = shared.network
        if isinstance(network, DeviceBackend) and not options.cpu_postprocessing:
            path = _device_path_if_any(model, network, options, rescoring)
            if path is not None:
                return path
        elif isinstance(network, DeviceBackend):
            _log.warning(
                "%s: the network's outputs are downloaded and post-processed on the CPU, as requested", network.name
            )
        if isinstance(network, DeviceBackend):
            _check_network(network, manifest)
        predict = None if rescoring is None else rescoring.on_host()
        postprocess = Postprocessor.of(manifest, settings, options.crop_margin, predict)
        return HostPath(manifest, network, postprocess, shared.drop)
    except BaseException:
        close_after_failure(shared.drop)
        raise


def _open_rescoring(mask_iou: MaskRescoring, network: Backend, options: SegmenterOptions) -> None:
    """Open the network, so that errors appear when the model is opened."""
    is_on_device = isinstance(network, DeviceBackend) and not options.cpu_postprocessing
    if not (is_on_device and mask_iou.on_device()):
        mask_iou.on_host()
    if not isinstance(network, DeviceBackend):
        mask_iou.forget_file()


def _device_path_if_any(
    model: OpenModel, network: DeviceBackend, options: SegmenterOptions, rescoring: MaskRescoring | None
) -> DevicePath | None:
    """Return None if the kernels cannot process it and the network has an alternative, as in ONNX Runtime."""
    try:
        path = _device_path(model, network, options, rescoring)
    except (MissingCubinError, KernelCompileError, MissingDependencyError, UsageError) as error:
        if not isinstance(network, OnnxRuntimeBackend):
            raise
        _log.warning("%s: frames are prepared, and masks made, on the CPU: %s", network.name, error)
        return None
    if isinstance(network, OnnxRuntimeBackend):
        _log.info("%s: frames stay on the GPU, from pixels to masks", network.name)
    return path


def _device_path(
    model: OpenModel, network: DeviceBackend, options: SegmenterOptions, rescoring: MaskRescoring | None
) -> DevicePath:
    manifest, rescore = model.manifest, rescoring is not None
    mask_iou = None if rescoring is None else rescoring.on_device()
    predict = rescoring.on_host() if rescoring is not None and mask_iou is None else None
    frame_model = FrameModel.of(
        manifest, options.nms_settings(manifest), options.crop_margin, rescore, network.tensors, mask_iou
    )
    network.device.make_current()
    cache = None
    if model.origin is not None:
        origin = model.origin
        precompiled = bundle_kernels(origin.folder, origin.manifest, signed=origin.verified_by is not None)
        cache = CubinCache(precompiled=precompiled, bundle=origin.folder)
    kernels = DeviceKernels(network.device, cache, mask_iou=mask_iou is not None)
    path = DevicePath(network, frame_model, kernels, options.frames_in_flight, predict)
    try:
        if options.frame_size is not None:
            path.warm_up(FrameLayout(*options.frame_size, PixelFormat.BGR))
    except BaseException:
        close_after_failure(path.close)
        raise
    path.on_close = model.shared.drop
    return path
