"""Comparison with alternatives, side by side in one run: the same frames, the same numbers of instances.

Every peer runs its own network on every frame. Its outputs are then replaced by outputs with exactly N instances, as
this project's are, and its own post-processing computes dense masks. OpenVINO is combined with this project's
post-processing: there, the networks are compared.
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
    """Another tool that segments frames.

    Attributes:
        name: Human-readable name.
        make: Function from a bundle, a number of instances (or None), and options to a function of a frame, whose
            result has a ``class_id``. It raises :class:`PeerMissingError` if the peer cannot run here.
    """

    name: str
    make: Callable[[Bundle, int | None, SegmenterOptions], Segment]


class PeerTimer:
    """A :class:`~yolact_benchmarks.measure.stages.FrameTimer` of a peer, which times whole frames."""

    segmenter: Any = None
    stages: tuple[Stage, ...] = ()

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def time(self, frame: Frame) -> FrameTimes:
        """Run one frame and return its time."""
        begun = time.perf_counter()
        result = self._segment(frame)
        return FrameTimes((time.perf_counter() - begun) * 1e3, {}, len(result.class_id))


def find_peers(checkpoint: Path | None) -> list[Peer]:
    """Return all known peers, whether they can run here or not.

    Args:
        checkpoint: Checkpoint that the bundle was exported from, for PyTorch; or None.
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
    """Measure this project's models and the peers, interleaved.

    Args:
        ours: Models of this project, by precision.
        bundle: Bundle with the peers' networks.
        peers: Peers to compare with; those that cannot run are listed in the result.
        frames: Frames, the same for all.
        count: Number of instances in every frame; None keeps what each network finds.
        options: Options of this project's segmenters.
        plan: Duration for each.
        watch: Watch of the machine.
        reporter: Reporter of the progress.

    Returns:
        JSON object ``{"caption", "frames", "instances", "ours", "rows", "missing", "reasons"}``, with the reasons to
        distrust it.
    """
    timers: dict[str, HostTimer | DeviceTimer | PeerTimer] = {name: model.timer(count) for name, model in ours.items()}
    own = list(timers)
    others, missing = _start(peers, bundle, frames, count, options)
    timers.update(others)
    cases, before = [Case(name, name, timer, frames) for name, timer in timers.items()], len(watch.samples)
    series = measure(cases, plan, watch, Meters((), ()), reporter)
    return {
        "caption": f"Whole frames, interleaved, {frames.name}, instances {'as found' if count is None else count}",
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
    """Return timers of the peers that can run a frame, and the reasons why the others cannot."""
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
