"""Times of whole networks side by side, on the backend that will run them."""

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
    """Median milliseconds of each network alone, taking turns, so that the machine's moods hit all of them alike.

    A turn is two runs, of which the second is timed: on the robot no other network runs in between.

    Args:
        models: Name -> model file; all of one input.
        spec: Their input.
        backend: Key of :data:`yolact_runtime.backends.BACKENDS`.
        num_threads: As the robot will use.
        seconds: To spend at least, once every network has had nine turns.

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
                # The network before leaves its weights in the caches, and its threads still spin on the cores.
                network.infer(tensor)
                started = time.perf_counter()
                network.infer(tensor)
                samples[name].append((time.perf_counter() - started) * 1e3)
    finally:
        for network in backends.values():
            network.close()
    return {name: statistics.median(times) for name, times in samples.items()}
