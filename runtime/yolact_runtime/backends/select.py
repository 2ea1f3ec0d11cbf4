"""Selection of a backend by name, or of the best one that works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from yolact_plugins.errors import NoDriverError
from yolact_runtime.backends.base import Backend, BackendFactory, ModelSource
from yolact_runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_runtime.backends.onnxruntime_cuda import open_on_cuda
from yolact_runtime.backends.tensorrt import TARGETS, TensorRtBackend
from yolact_runtime.errors import BackendUnavailableError, NoEngineError, UsageError

__all__ = ["BACKENDS", "create_backend"]

_log = logging.getLogger(__name__)

BACKENDS: Mapping[str, BackendFactory] = {
    **{name: partial(TensorRtBackend, name=name) for name in TARGETS},
    "onnxruntime-cuda": open_on_cuda,
    "onnxruntime-cpu": partial(OnnxRuntimeBackend, name="onnxruntime-cpu"),
}
"""Backend name -> factory, fastest first: the order in which ``"auto"`` tries them."""


def create_backend(name: str, model: ModelSource | Callable[[str], ModelSource], num_threads: int = 0) -> Backend:
    """Load a model with a backend.

    Args:
        name: A key of :data:`BACKENDS`, or ``"auto"`` for the first one that works. Each backend that is skipped is
            logged with the reason; an engine that cannot be run is a warning, unless the machine shows no sign of an
            NVIDIA GPU.
        model: The model file or its content; or a function that maps a backend's name to the file that suits it best.
        num_threads: Number of CPU threads per call; 0 lets the library choose.

    Raises:
        UsageError: There is no backend of that name.
        BackendUnavailableError: The named backend, or every backend, is unavailable here; the message lists all
            reasons.
        BackendError: The library is available but rejects the file. ``"auto"`` stops there, because the file is at
            fault.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise UsageError(f'no backend "{name}"; there are auto, {", ".join(BACKENDS)}')
        return BACKENDS[name](model(name) if callable(model) else model, num_threads=num_threads)
    reasons: dict[str, BackendUnavailableError] = {}
    for key, factory in BACKENDS.items():
        try:
            backend = factory(model(key) if callable(model) else model, num_threads=num_threads)
        except BackendUnavailableError as error:
            reasons[key] = error
            continue
        for passed_over, reason in reasons.items():
            # An engine that exists but does not run deserves a warning: a robot must not become slow silently. On a
            # machine without a GPU this is expected.
            is_news = passed_over in TARGETS and not isinstance(reason, NoEngineError) and not _lacks_gpu(reason)
            _log.log(logging.WARNING if is_news else logging.INFO, "skipped: %s", reason)
        return backend
    # A missing engine explains nothing if a library is missing that needs no engine.
    telling = [reason for reason in reasons.values() if not isinstance(reason, NoEngineError)]
    different = list(dict.fromkeys(map(str, telling or reasons.values())))
    listed = " " + different[0] if len(different) == 1 else "".join(f"\n  {reason}" for reason in different)
    raise BackendUnavailableError(f"no backend can run this model here:{listed}")


def _lacks_gpu(reason: BaseException | None) -> bool:
    while reason is not None:
        if isinstance(reason, NoDriverError):
            return True
        reason = reason.__cause__
    return False
