"""What people would use instead, side by side with ours in one run: the same frames, the same numbers of instances.

Every peer runs its own network on every frame; then, as with ours, its outputs are exchanged for those with exactly N
instances, and its own post-processing makes dense masks of them. OpenVINO is put below our own post-processing: what
is compared there is the network.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.machine.machine_state import MachineWatch, judge_machine
from yolact_benchmarks.machine.power import Meters
from yolact_benchmarks.measure.device_timer import DeviceModel, DeviceTimer
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.host_timer import HostModel, HostTimer
from yolact_benchmarks.measure.measurement import Case, Plan, Series, measure
from yolact_benchmarks.measure.stages import FrameTimes, Stage
from yolact_benchmarks.peers.peer_networks import (
    PeerMissingError,
    Segment,
    onnxruntime_segment,
    openvino_segment,
    torch_segment,
)
from yolact_benchmarks.statistics.block_bootstrap import ratio_interval
from yolact_runtime.model.bundle import Bundle
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import SegmenterOptions

__all__ = ["Peer", "PeerTimer", "find_peers", "measure_peers"]

Frame = npt.NDArray[np.uint8]


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
    """A :class:`~yolact_benchmarks.measure.stages.FrameTimer` of a peer: whole frames."""

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

    def torch_peer(compiled: bool, device: str = "cpu") -> Callable[[Bundle, int | None, SegmenterOptions], Segment]:
        return lambda bundle, count, options: torch_segment(checkpoint, compiled, bundle, count, options, device)

    return [
        Peer("PyTorch eager, dense masks", torch_peer(False)),
        Peer("torch.compile, dense masks", torch_peer(True)),
        Peer("PyTorch CUDA float16, dense masks", torch_peer(False, "cuda")),
        Peer("ONNX Runtime fp32, dense NumPy/OpenCV", onnxruntime_segment),
        Peer("ONNX Runtime CUDA fp32, dense NumPy/OpenCV", _onnxruntime_cuda),
        Peer("OpenVINO fp32, our post-processing", lambda *words: openvino_segment("fp32", *words)),
        Peer("OpenVINO int8-cpu, our post-processing", lambda *words: openvino_segment("int8-cpu", *words)),
    ]


def _onnxruntime_cuda(bundle: Bundle, count: int | None, options: SegmenterOptions) -> Segment:
    return onnxruntime_segment(bundle, count, options, "cuda")


def measure_peers(
    ours: Mapping[str, HostModel | DeviceModel],
    bundle: Bundle,
    peers: Sequence[Peer],
    frames: FrameSet,
    count: int | None,
    options: SegmenterOptions,
    plan: Plan,
    watch: MachineWatch,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Measure ours and the peers in turns.

    Args:
        ours: By precision.
        bundle: Gives the peers their networks.
        peers: To compare with; those that cannot run are listed.
        frames: That all get.
        count: Instances in every frame; None is what each finds.
        options: Of our segmenters.
        plan: How long, for each.
        watch: Of the machine.
        reporter: Is told how far it is.

    Returns:
        JSON object ``{"caption", "frames", "instances", "ours", "rows", "missing", "reasons"}``; reasons against it.
    """
    timers: dict[str, HostTimer | DeviceTimer | PeerTimer] = {name: model.timer(count) for name, model in ours.items()}
    own = list(timers)
    others, missing = _start(peers, bundle, frames, count, options)
    timers.update(others)
    cases, before = [Case(name, name, timer, frames) for name, timer in timers.items()], len(watch.samples)
    series = measure(cases, plan, watch, Meters((), ()), reporter)
    return {
        "caption": f"Whole frames in turns, {frames.name}, instances {'as found' if count is None else count}",
        "frames": frames.name,
        "instances": "found" if count is None else count,
        "ours": {name: round(float(np.median(series[name].total_ms)), 3) for name in own},
        "rows": [_row(name, mine, series) for name in timers if name not in own for mine in own],
        "missing": missing,
        "reasons": list(judge_machine(watch.samples[before:])),
    }


def _start(
    peers: Sequence[Peer], bundle: Bundle, frames: FrameSet, count: int | None, options: SegmenterOptions
) -> tuple[dict[str, PeerTimer], list[dict[str, str]]]:
    """Timers of those that run a frame, and why the others do not."""
    timers, missing = {}, []
    for peer in peers:
        try:
            timer = PeerTimer(peer.make(bundle, count, options))
            timer.time(frames.frames[0])
        except (PeerMissingError, ImportError) as error:
            missing.append({"name": peer.name, "why": str(error)})
        else:
            timers[peer.name] = timer
    return timers, missing


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
