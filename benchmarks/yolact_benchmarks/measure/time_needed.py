"""Estimate of a run's total time, made once the first process has opened its models."""

from __future__ import annotations

import dataclasses
import time

from yolact_benchmarks.measure.request import BenchRequest
from yolact_plugins.files import human_estimate

__all__ = ["WholeRun", "estimate_seconds", "total_line"]

_PROFILE_S = 3.0
"""Time of one network's profile on two cores, and of a fresh process for the peers, seconds."""
_NUM_PEERS = 3


@dataclasses.dataclass(frozen=True)
class WholeRun:
    """All processes of a run together, from which the first one estimates their total time.

    Attributes:
        request: Request that all processes share.
        begun: Start of the first process, seconds on the monotonic clock that all processes of a machine share.
    """

    request: BenchRequest
    begun: float

    def line(self, num_cases: int, num_networks: int, now: float | None = None) -> str:
        """Return :func:`total_line`, once a process has opened its models; `now` is on the same clock."""
        passed = (time.monotonic() if now is None else now) - self.begun
        return total_line(self.request, num_cases, num_networks, passed)


def estimate_seconds(request: BenchRequest, num_cases: int, num_networks: int, opening_s: float) -> float:
    """Estimate a lower bound of a run's total time, in seconds.

    With `until_ci`, it is an upper bound, except for the last process. What depends on the speed of the models is not
    included: frames that take longer than their share of the time, and the images of ``--annotations`` and
    ``--against``.

    Args:
        request: Request of all processes together.
        num_cases: Number of configurations that are measured.
        num_networks: Number of networks among them.
        opening_s: Time from the start of a process to its first frame, seconds: Python, imports, frames and models.
    """
    plan, num = request.plan, request.num_processes
    measuring = num_cases * (plan.duration_s + request.streaming_s + num * plan.warm_up_s)
    # A process that only opens one network and runs a few frames imports less, and makes no frames.
    start = opening_s / (1 + num_networks)
    total = num * opening_s + measuring + request.num_cold_starts * num_networks * start
    if request.with_layers:
        total += num_networks * (start + _PROFILE_S)
    if request.with_peers:
        networks = num_networks + _NUM_PEERS
        total += networks * (start + plan.duration_s + plan.warm_up_s) + _NUM_PEERS * _PROFILE_S
    return total


def total_line(request: BenchRequest, num_cases: int, num_networks: int, opening_s: float) -> str:
    """Return a line that states the estimated total time; see :func:`estimate_seconds`."""
    seconds = human_estimate(estimate_seconds(request, num_cases, num_networks, opening_s))
    parts = [f"{request.num_processes} processes" if request.num_processes > 1 else ""]
    parts += ["streaming" if request.streaming_s else "", "cold starts" if request.num_cold_starts else ""]
    parts += ["layers" if request.with_layers else "", "peers" if request.with_peers else ""]
    kept = [part for part in parts if part]
    told = f"about {seconds} in total"
    if kept:
        told += f", with {' and '.join(filter(None, (', '.join(kept[:-1]), kept[-1])))}"
    if request.plan.until_ci:
        told += ", or less if every median is known earlier"
    if request.annotations or request.against:
        told += ", plus the pictures for the accuracy"
    return told
