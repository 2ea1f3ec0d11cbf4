"""A model whose network is slowed down on purpose: a regression of known size."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.host_timer import HostModel
from yolact_benchmarks.measure.opened_model import OpenedModel
from yolact_benchmarks.measure.process_run import ProcessRun, find_frames, measure_models
from yolact_benchmarks.measure.request import BenchRequest
from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.model.bundle import open_bundle
from yolact_runtime.reporter import Reporter

__all__ = ["SlowedBackend", "measure_slowed"]

_BACKEND = "onnxruntime-cpu"


class SlowedBackend:
    """A network that takes `extra_ms` longer by busy-waiting, like a slower network. Closing it closes the network."""

    def __init__(self, network: Backend, extra_ms: float) -> None:
        self.name = network.name
        self._network = network
        self._extra_ms = extra_ms

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the network, wait, and return its outputs."""
        outputs = self._network.infer(tensor)
        until = time.perf_counter() + self._extra_ms / 1e3
        while time.perf_counter() < until:
            pass
        return outputs

    def close(self) -> None:
        """Close the network."""
        self._network.close()


def measure_slowed(request: BenchRequest, extra_ms: float, reporter: Reporter) -> ProcessRun:
    """Measure a request in ONNX Runtime on the CPU, with a network that is slowed down.

    This is :func:`yolact_benchmarks.measure.process_run.measure_request` with a :class:`SlowedBackend`.

    Args:
        request: Request to measure; of a folder, the first precision that it names.
        extra_ms: Added time of every run of the network, milliseconds.
        reporter: Reporter of the progress.
    """
    bundle = open_bundle(request.model, next(iter(request.precisions), None))
    network = SlowedBackend(create_backend(_BACKEND, bundle.network, request.num_threads), extra_ms)
    source = HostModel(bundle, _BACKEND, request.options, network)
    precision = bundle.manifest.precision
    model = OpenedModel(request.model, bundle.network.path, precision, _BACKEND, bundle.manifest, source)
    try:
        return measure_models(request, [model], find_frames(request)[0], None, reporter)
    finally:
        model.close()
