"""Times of whole networks, interleaved, on the backend that will run them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from yolact_runtime.backends import create_backend
from yolact_runtime.model.manifest import InputSpec

__all__ = ["time_networks_ms"]

_WARM_UP, _LEAST_ROUNDS = 2, 9


def time_networks_ms(
    models: Mapping[str, Path],
    spec: InputSpec,
    backend: str = "onnxruntime-cpu",
    num_threads: int = 1,
    seconds: float = 5.0,
) -> dict[str, float]:
    """Measure the median milliseconds of each network, interleaved, so that noise of the machine affects all alike.

    Each turn is two runs, of which the second is timed, because on the robot no other network runs in between.

    Args:
        models: Model files by name, all with the same input.
        spec: Specification of their input.
        backend: Key of :data:`yolact_runtime.backends.BACKENDS`.
        num_threads: Number of threads, as on the robot.
        seconds: Minimum duration in seconds, in addition to nine turns of every network.

    Raises:
        BackendError, BackendUnavailableError: A model cannot be run.
    """
    tensor = np.random.default_rng(0).normal(size=(1, 3, spec.height, spec.width)).astype(np.float32)
    backends = {name: create_backend(backend, path, num_threads) for name, path in models.items()}
    samples: dict[str, list[float]] = {name: [] for name in models}
    try:
        for _ in range(_WARM_UP):
            for network in backends.values():
                network.infer(tensor)
        begun = time.perf_counter()
        while len(next(iter(samples.values()))) < _LEAST_ROUNDS or time.perf_counter() - begun < seconds:
            for name, network in backends.items():
                # The previous network leaves its weights in the caches, and its threads still spin on the cores.
                network.infer(tensor)
                started = time.perf_counter()
                network.infer(tensor)
                samples[name].append((time.perf_counter() - started) * 1e3)
    finally:
        for network in backends.values():
            network.close()
    return {name: statistics.median(times) for name, times in samples.items()}
