"""What people would use instead, side by side with ours in one run: the same frames, the same numbers of instances.

Every peer runs its own network on every frame; then, as with ours, its outputs are exchanged for those with exactly N
instances, and its own post-processing makes dense masks of them. OpenVINO is put below our own post-processing: what
is compared there is the network.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.block_bootstrap import ratio_interval
from yolact_benchmarks.dense_numpy import dense_numpy_postprocess, opencv_preprocess
from yolact_benchmarks.frames import FrameSet
from yolact_benchmarks.host_timer import HostModel, HostTimer
from yolact_benchmarks.machine_state import MachineWatch, judge_machine
from yolact_benchmarks.measurement import Case, Plan, Series, measure
from yolact_benchmarks.planted import PlantedBackend, planted_outputs
from yolact_benchmarks.power import Meters
from yolact_benchmarks.stages import FrameTimes, Stage
from yolact_runtime.bundle import Bundle, open_bundle
from yolact_runtime.errors import BackendError, YolactError
from yolact_runtime.postprocess import Postprocessor
from yolact_runtime.segmenter import SegmenterOptions

__all__ = ["Peer", "PeerMissingError", "PeerTimer", "find_peers", "measure_peers"]

Array = npt.NDArray[np.floating]
Frame = npt.NDArray[np.uint8]
Segment = Callable[[Frame], Any]


class PeerMissingError(YolactError):
    """A peer cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way to segment a frame that is not ours.

    Attributes:
        name: For people.
        make: From a bundle, how many instances, and options, to a function of a frame whose result has a
            ``class_id``. Raises :class:`PeerMissingError` where it cannot.
    """

    name: str
    make: Callable[[Bundle, int | None, SegmenterOptions], Segment]


class PeerTimer:
    """A :class:`~yolact_benchmarks.stages.FrameTimer` of a peer: whole frames."""

    segmenter: Any = None
    stages: tuple[Stage, ...] = ()

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def time(self, frame: Frame) -> FrameTimes:
        """Run one frame."""
        begun = time.perf_counter()
        result = self._segment(frame)
        return FrameTimes((time.perf_counter() - begun) * 1e3, {}, len(result.class_id))


def find_peers(checkpoint: Path | None) -> list[Peer]:
    """All peers that are known, whether they can run here or not.

    Args:
        checkpoint: That the bundle was exported from, for PyTorch; or None.
    """

    def torch_peer(compiled: bool) -> Callable[[Bundle, int | None, SegmenterOptions], Segment]:
        return lambda bundle, count, options: _torch_segment(checkpoint, compiled, bundle, count, options)

    return [
        Peer("PyTorch eager, dense masks", torch_peer(False)),
        Peer("torch.compile, dense masks", torch_peer(True)),
        Peer("ONNX Runtime fp32, dense NumPy/OpenCV", _onnxruntime_segment),
        Peer("OpenVINO fp32, our post-processing", lambda *words: _openvino_segment("fp32", *words)),
        Peer("OpenVINO int8-cpu, our post-processing", lambda *words: _openvino_segment("int8-cpu", *words)),
    ]


def measure_peers(
    ours: Mapping[str, HostModel],
    peers: Sequence[Peer],
    frames: FrameSet,
    count: int | None,
    options: SegmenterOptions,
    plan: Plan,
    watch: MachineWatch,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measure ours and the peers in turns.

    Args:
        ours: By precision.
        peers: To compare with; those that cannot run are listed.
        frames: That all get.
        count: Instances in every frame; None is what each finds.
        options: Of our segmenters.
        plan: How long, for each.
        watch: Of the machine.
        progress: Takes lines for people.

    Returns:
        JSON object ``{"caption", "frames", "instances", "ours", "rows", "missing", "reasons"}``; the reasons are those
        against the machine meanwhile.
    """
    timers: dict[str, HostTimer | PeerTimer] = {name: model.timer(count) for name, model in ours.items()}
    own = list(timers)
    missing = []
    bundle = next(iter(ours.values())).bundle
    for peer in peers:
        try:
            timer = PeerTimer(peer.make(bundle, count, options))
            timer.time(frames.frames[0])
        except (PeerMissingError, ImportError) as error:
            missing.append({"name": peer.name, "why": str(error)})
            continue
        timers[peer.name] = timer
    cases = [Case(name, name, timer, frames) for name, timer in timers.items()]
    before = len(watch.samples)
    series = measure(cases, plan, watch, Meters((), ()), progress)
    shown = "as found" if count is None else count
    return {
        "caption": f"Whole frames in turns, {frames.name}, instances {shown}",
        "frames": frames.name,
        "instances": "found" if count is None else count,
        "ours": {name: round(float(np.median(series[name].total_ms)), 3) for name in own},
        "rows": [_row(name, mine, series) for name in timers if name not in own for mine in own],
        "missing": missing,
        "reasons": list(judge_machine(watch.samples[before:])),
    }


def _row(name: str, own: str, series: Mapping[str, Series]) -> dict[str, Any]:
    ratio = ratio_interval(series[name].total_ms, series[own].total_ms)
    figures = {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}
    return {
        "name": name,
        "over": own,
        "median_ms": round(float(np.median(series[name].total_ms)), 3),
        **{key: None if value is None else round(value, 4) for key, value in figures.items()},
        "found": float(np.median(series[name].num_instances)),
        "frames": len(series[name].total_ms),
    }


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _torch_segment(
    checkpoint: Path | None, compiled: bool, bundle: Bundle, count: int | None, options: SegmenterOptions
) -> Segment:
    if checkpoint is None:
        raise PeerMissingError("needs the checkpoint: give --checkpoint FILE.pth")
    try:
        import torch
        from torch.nn import functional

        from yolact_benchmarks.dense_postprocess import dense_postprocess
        from yolact_export.checkpoint import load_checkpoint
    except ImportError as error:
        raise PeerMissingError(f"PyTorch is not installed ({error})") from error
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    spec = bundle.manifest.input
    model = load_checkpoint(checkpoint).model
    network: Any = torch.compile(model, dynamic=False) if compiled else model
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean_bgr, spec.std_bgr))
    priors = torch.from_numpy(Postprocessor.of(bundle.manifest).priors)

    @torch.inference_mode()
    def infer(frame: Frame) -> Any:
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        image = functional.interpolate(image, (spec.height, spec.width), mode="bilinear", align_corners=False)
        return network(((image - mean) / std)[:, [2, 1, 0]].contiguous())

    example = np.zeros((spec.height, spec.width, 3), np.uint8)
    try:
        like = {name: tensor.numpy() for name, tensor in infer(example)._asdict().items()}
    except Exception as error:
        if compiled:  # its errors have no common base class, and come from a compiler that may not be there
            raise PeerMissingError(f"torch.compile fails here: {str(error).splitlines()[0]}") from error
        raise
    planted = None if count is None else _tensors(planted_outputs(bundle.manifest, like, count))

    @torch.inference_mode()
    def segment(frame: Frame) -> Any:
        raw = infer(frame)._asdict()
        outputs = {name: tensor[0] for name, tensor in (raw if planted is None else planted).items()}
        return dense_postprocess(
            **outputs,
            priors=priors,
            height=frame.shape[0],
            width=frame.shape[1],
            min_confidence=options.min_confidence,
        )

    return segment


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# --- ONNX Runtime and OpenVINO ----------------------------------------------------------------------------------------


def _network_of(bundle: Bundle, precision: str) -> Path:
    if bundle.path.is_dir():
        try:
            return open_bundle(bundle.path, precision).network
        except YolactError as error:
            raise PeerMissingError(f"the bundle has no {precision} network") from error
    if bundle.manifest.precision != precision:
        raise PeerMissingError(f"{bundle.path} is {bundle.manifest.precision}; give the bundle folder")
    return bundle.network


def _onnxruntime_segment(bundle: Bundle, count: int | None, options: SegmenterOptions) -> Segment:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.num_threads
    settings.log_severity_level = 3
    path = _network_of(bundle, "fp32")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    spec, priors = bundle.manifest.input, Postprocessor.of(bundle.manifest).priors
    names = [output.name for output in session.get_outputs()]
    feed = session.get_inputs()[0].name

    def infer(frame: Frame) -> dict[str, Array]:
        return dict(zip(names, session.run(names, {feed: opencv_preprocess(frame, spec)}), strict=True))

    planted = _planted(bundle, infer(np.zeros((spec.height, spec.width, 3), np.uint8)), count)

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

    def __init__(self, path: Path, num_threads: int) -> None:
        try:
            openvino: Any = importlib.import_module("openvino")
            self.version = importlib.metadata.version("openvino")
        except ImportError as error:
            raise PeerMissingError("the package openvino is not installed (pip install openvino)") from error
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if num_threads:
            config["INFERENCE_NUM_THREADS"] = num_threads
        try:
            self._model = openvino.Core().compile_model(str(path), "CPU", config)
        except RuntimeError as error:
            raise PeerMissingError(f"OpenVINO {self.version} cannot compile {path.name}: {error}") from error
        self._names = [output.get_any_name() for output in self._model.outputs]
        self._request = self._model.create_infer_request()

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        if self._request is None:
            raise BackendError("the backend was closed; open the model again")
        self._request.infer([tensor], share_inputs=True)
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._names)}

    def close(self) -> None:
        self._request = None


def _openvino_segment(precision: str, bundle: Bundle, count: int | None, options: SegmenterOptions) -> Segment:
    with ExitStack() as stack:
        network: Any = _OpenVino(_network_of(bundle, precision), options.num_threads)
        stack.callback(network.close)
        spec = bundle.manifest.input
        planted = _planted(bundle, network.infer(np.zeros((1, 3, spec.height, spec.width), np.float32)), count)
        timer = HostTimer(bundle, PlantedBackend(network, planted) if planted else network, None, options)
        stack.pop_all()
    return timer.segmenter
