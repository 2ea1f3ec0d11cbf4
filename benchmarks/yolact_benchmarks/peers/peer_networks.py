"""The networks of peers, each with the post-processing that its users have: PyTorch, ONNX Runtime, OpenVINO.

Each function returns a function that maps a frame to a result with a ``class_id``, or raises :class:`PeerMissingError`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.host_timer import HostTimer
from yolact_benchmarks.measure.planted import PlantedBackend, planted_outputs
from yolact_benchmarks.peers.dense_numpy import dense_numpy_postprocess, opencv_preprocess
from yolact_runtime.backends.onnxruntime_session import SessionSettings
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.errors import BackendError, BundleError, YolactError
from yolact_runtime.model.bundle import Bundle, open_bundle
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.segmenter import SegmenterOptions

__all__ = ["PeerMissingError", "Segment", "onnxruntime_segment", "openvino_segment", "torch_segment"]

Array = npt.NDArray[np.floating]
Frame = npt.NDArray[np.uint8]
Segment = Callable[[Frame], Any]


class PeerMissingError(YolactError):
    """A peer cannot run here; the message says why."""


def torch_segment(
    checkpoint: Path | None,
    compiled: bool,
    bundle: Bundle,
    count: int | None,
    options: SegmenterOptions,
    device: str = "cpu",
) -> Segment:
    """Make a function that segments with PyTorch, eager or compiled, with a dense mask for each instance.

    Args:
        checkpoint: Checkpoint that the bundle was exported from.
        compiled: Whether to use ``torch.compile``.
        bundle: Bundle whose manifest describes the input.
        count: Number of instances to plant; None keeps the network's outputs.
        options: Options, of which the number of threads and the threshold are used.
        device: Device: ``"cpu"`` runs in float32; ``"cuda"`` runs the network in float16 and everything on the GPU.
    """
    if checkpoint is None:
        raise PeerMissingError("needs the checkpoint: give --checkpoint FILE.pth")
    try:
        import torch

        from yolact_benchmarks.peers.dense_postprocess import dense_postprocess
    except ImportError as error:
        raise PeerMissingError(f"PyTorch is not installed ({error})") from error
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise PeerMissingError("PyTorch has no CUDA here")
    infer = _torch_network(checkpoint, compiled, bundle, device)
    try:
        like = {name: tensor.cpu().numpy() for name, tensor in infer(_black(bundle))._asdict().items()}
    except Exception as error:
        if compiled:  # its errors have no common base class, and come from a compiler that may be missing
            raise PeerMissingError(f"torch.compile fails here: {str(error).splitlines()[0]}") from error
        raise
    planted = _planted(bundle, like, count)
    tensors = None if planted is None else {name: torch.from_numpy(a).to(device) for name, a in planted.items()}
    priors = torch.from_numpy(Postprocessor.of(bundle.manifest).priors).to(device)

    @torch.inference_mode()
    def segment(frame: Frame) -> Any:
        raw = infer(frame)._asdict()
        facts: dict[str, Any] = {name: tensor[0] for name, tensor in (tensors or raw).items()}
        facts |= {"height": frame.shape[0], "width": frame.shape[1], "min_confidence": options.min_confidence}
        with torch.device(device):
            found = dense_postprocess(**facts, priors=priors)
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return segment


def _torch_network(checkpoint: Path, compiled: bool, bundle: Bundle, device: str) -> Callable[[Frame], Any]:
    """Return a function from a frame to the network's raw outputs, including the preprocessing in PyTorch."""
    import torch
    from torch.nn import functional

    from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint

    spec = bundle.manifest.input
    # The bundle records the input format and which of several weights of the checkpoint were exported.
    provenance = bundle.manifest.provenance
    options = CheckpointOptions(weights=provenance.get("checkpoint_weights"), assume=True)
    loaded = load_checkpoint(checkpoint, options)
    if provenance.get("checkpoint_sha256", loaded.sha256) != loaded.sha256:
        raise PeerMissingError(f"{checkpoint} is not the file that the bundle was exported from: its sha256 differs")
    model = loaded.model.to(device)
    dtype = torch.float32
    if device == "cuda":
        dtype, model = torch.float16, model.half()
    network: Any = torch.compile(model, dynamic=False) if compiled else model
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (spec.mean_bgr, spec.std_bgr))

    @torch.inference_mode()
    def infer(frame: Frame) -> Any:
        image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float()
        image = functional.interpolate(image, (spec.height, spec.width), mode="bilinear", align_corners=False)
        return network(((image - mean) / std)[:, [2, 1, 0]].to(dtype).contiguous())

    return infer


def _black(bundle: Bundle) -> Frame:
    return np.zeros((bundle.manifest.input.height, bundle.manifest.input.width, 3), np.uint8)


def _network_of(bundle: Bundle, precision: str) -> ModelFile:
    """Return a network of an open bundle; files of the folder that changed since it was verified are refused."""
    if bundle.manifest.precision == precision:
        return bundle.network
    if bundle.path.is_dir():
        try:
            found = open_bundle(bundle.path, precision)
        except YolactError as error:
            raise PeerMissingError(f"the bundle has no {precision} network") from error
        if found.manifest.artefacts != bundle.manifest.artefacts:
            # Only the bundle that was opened first may have had its signature verified.
            raise BundleError(f"{bundle.path} was changed while it was measured: start again")
        return found.network
    raise PeerMissingError(f"{bundle.path} is {bundle.manifest.precision}; give the bundle folder")


def onnxruntime_segment(bundle: Bundle, count: int | None, options: SegmenterOptions, device: str = "cpu") -> Segment:
    """Make a function that segments with ONNX Runtime in float32, OpenCV before it and dense NumPy masks after it."""
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise PeerMissingError(f"this build of ONNX Runtime {onnxruntime.__version__} has no {provider}")
    settings = SessionSettings(options.num_threads).options()
    network = _network_of(bundle, "fp32")
    session = onnxruntime.InferenceSession(network.content, settings, providers=[provider])
    if session.get_providers()[0] != provider:
        raise PeerMissingError(f"{provider} does not start here (driver or CUDA missing?)")
    spec, priors = bundle.manifest.input, Postprocessor.of(bundle.manifest).priors
    names = [output.name for output in session.get_outputs()]
    feed = session.get_inputs()[0].name

    def infer(frame: Frame) -> dict[str, Array]:
        return dict(zip(names, session.run(names, {feed: opencv_preprocess(frame, spec)}), strict=True))

    planted = _planted(bundle, infer(_black(bundle)), count)

    def segment(frame: Frame) -> Any:
        outputs = infer(frame)
        return dense_numpy_postprocess(
            planted or outputs, priors, options.min_confidence, frame.shape[0], frame.shape[1]
        )

    return segment


def _planted(bundle: Bundle, like: Mapping[str, Array], count: int | None) -> dict[str, Array] | None:
    return None if count is None else planted_outputs(bundle.manifest, like, count)


class _OpenVino:
    """A network in OpenVINO; a :class:`yolact_runtime.backends.Backend`."""

    name = "openvino-cpu"

    def __init__(self, model: ModelFile, num_threads: int) -> None:
        try:
            openvino: Any = importlib.import_module("openvino")
            self.version = importlib.metadata.version("openvino")
        except ImportError as error:
            raise PeerMissingError("the package openvino is not installed (pip install openvino)") from error
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if num_threads:
            config["INFERENCE_NUM_THREADS"] = num_threads
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(model.content), "CPU", config)
        except RuntimeError as error:
            raise PeerMissingError(f"OpenVINO {self.version} cannot compile {model.path.name}: {error}") from error
        self._names = [output.get_any_name() for output in self._model.outputs]
        self._request = self._model.create_infer_request()

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        if self._request is None:
            raise BackendError("the backend was closed; open the model again")
        self._request.infer([tensor], share_inputs=True)
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._names)}

    def close(self) -> None:
        self._request = None


def openvino_segment(precision: str, bundle: Bundle, count: int | None, options: SegmenterOptions) -> Segment:
    """Make a function that segments with OpenVINO and this project's post-processing."""
    with ExitStack() as stack:
        network: Any = _OpenVino(_network_of(bundle, precision), options.num_threads)
        stack.callback(network.close)
        spec = bundle.manifest.input
        planted = _planted(bundle, network.infer(np.zeros((1, 3, spec.height, spec.width), np.float32)), count)
        timer = HostTimer(bundle, PlantedBackend(network, planted) if planted else network, None, options)
        stack.pop_all()
    return timer.segmenter
