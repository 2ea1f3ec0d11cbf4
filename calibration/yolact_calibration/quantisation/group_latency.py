"""Latency of each part of a network, in float and in INT8, on ONNX Runtime's CPU provider."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_plugins.staging import scratch_folder
from yolact_runtime.backends.onnxruntime_session import (
    SessionSettings,
    end_profile,
    open_cpu_session,
    single_feed,
)

__all__ = ["GroupTimes", "time_groups"]

_WARM_UP, _ROUNDS = 2, 7
# Consecutive runs of a network, of which the last counts: the first is slowed by the network that ran before it.
_TURN = 2


@dataclasses.dataclass(frozen=True)
class GroupTimes:
    """Times of one graph.

    Attributes:
        total_ms: Median time of a whole run in milliseconds.
        group_ms: Milliseconds by group: sum of the medians of its convolutions and of the nodes that follow them up to
            the next one. Layout conversions are in the total only.
    """

    total_ms: float
    group_ms: Mapping[str, float]


def time_groups(
    graph: NetworkGraph, variants: Mapping[str, onnx.ModelProto], num_threads: int = 0
) -> dict[str, GroupTimes]:
    """Time several variants of one network, interleaved, so that noise of the machine affects all of them alike.

    Args:
        graph: Graph of the float network, with its convolutions and their groups.
        variants: Variants of the network by name.
        num_threads: Number of CPU threads; 0 leaves the choice to ONNX Runtime.

    Raises:
        CalibrationError: The profiler's events do not name the convolutions.
    """
    tensor = np.random.default_rng(0).normal(size=graph.shape(graph.model.graph.input[0].name)).astype(np.float32)
    with scratch_folder("profile") as folder:
        sessions = {
            name: open_cpu_session(model.SerializeToString(), SessionSettings(num_threads, profile=folder / str(i)))
            for i, (name, model) in enumerate(variants.items())
        }
        for _ in range(_WARM_UP + _ROUNDS):
            for session in sessions.values():
                for _ in range(_TURN):
                    session.run(None, single_feed(session, tensor))
        profiles = {name: end_profile(session) for name, session in sessions.items()}
    return {name: _times(graph, events) for name, events in profiles.items()}


def _times(graph: NetworkGraph, events: Sequence[dict[str, Any]]) -> GroupTimes:
    groups = _node_groups(graph)
    # Longest first, because one name may be a prefix of another.
    names = sorted(groups, key=len, reverse=True)
    runs: list[float] = []
    nodes: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("name") == "model_run":
            runs.append(event["dur"] / 1e3)
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"]].append(event["dur"] / 1e3)
    group_ms = dict.fromkeys(graph.groups, 0.0)
    silent = set(graph.groups)
    for event_name, times in nodes.items():
        if (name := next((name for name in names if event_name.startswith(name)), None)) is not None:
            # The time may be 0: the profiler counts whole microseconds.
            group_ms[groups[name]] += statistics.median(_counted(times) or times)
            silent.discard(groups[name])
    num_runs = (_WARM_UP + _ROUNDS) * _TURN
    if len(runs) != num_runs or silent:
        raise CalibrationError(
            f"ONNX Runtime's profile does not distinguish the parts of the network ({len(runs)} runs of {num_runs}, no "
            f"time for: {', '.join(sorted(silent)) or 'none'}); install another version of onnxruntime"
        )
    return GroupTimes(statistics.median(_counted(runs)), group_ms)


def _counted(times: Sequence[float]) -> Sequence[float]:
    """Return the times without the warm-up and the first of each pair of runs."""
    return times[_WARM_UP * _TURN + _TURN - 1 :: _TURN]


def _node_groups(graph: NetworkGraph) -> dict[str, str]:
    """Map nodes to the group of the preceding convolution: a fused kernel has the name of its last node."""
    of_conv = {convolution.name: convolution.group for convolution in graph.convolutions}
    found: dict[str, str] = {}
    for node in graph.nodes:
        maker = graph.producer.get(node.input[0])
        group = of_conv.get(node.name) or (found.get(maker.name) if maker is not None else None)
        if group is not None:
            found[node.name] = group
    return found
