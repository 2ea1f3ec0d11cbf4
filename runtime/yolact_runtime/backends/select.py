"""Choosing a backend by name, or the best one that works."""

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
"""Factories by name, fastest first: the order in which ``"auto"`` tries them."""


def create_backend(name: str, model: ModelSource | Callable[[str], ModelSource], num_threads: int = 0) -> Backend:
    """Load a model.

    Args:
        name: A key of :data:`BACKENDS`, or ``"auto"`` for the first that is available. Each one that is passed over is
            logged with its reason: an engine that does not run as a warning, unless the machine shows no sign of an
            NVIDIA GPU.
        model: The model file, or what was read of it; or a function of a backend's name, where backends run different
            files best.
        num_threads: CPU threads of one call; 0 leaves the choice to the library.

    Raises:
        UsageError: No backend of that name.
        BackendUnavailableError: The named backend, or all of them, cannot be used here; the message has every reason.
        BackendError: The library is there and refuses the file. ``"auto"`` does not look further: the file is at fault.
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
            # An engine that is there and does not run is news: a robot must not be slow in silence. That a machine
            # without a GPU does not run it is none.
            is_news = passed_over in TARGETS and not isinstance(reason, NoEngineError) and not _lacks_gpu(reason)
            _log.log(logging.WARNING if is_news else logging.INFO, "passed over: %s", reason)
        return backend
    # That there is no engine explains nothing where a library is missing that needs none.
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
