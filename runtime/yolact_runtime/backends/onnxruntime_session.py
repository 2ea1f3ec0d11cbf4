"""The one place where ONNX Runtime's sessions are set up: what all have in common, and what may differ.

Backends, calibration, pruning and benchmarks run networks with the same settings but for what :class:`SessionSettings`
names, so that a network which is timed or judged is the network which is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError

__all__ = [
    "CPU_PROVIDER",
    "SessionSettings",
    "end_profile",
    "forget_model",
    "import_onnxruntime",
    "open_cpu_session",
    "run_options",
    "single_feed",
]

CPU_PROVIDER = "CPUExecutionProvider"
_LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
# Its exceptions contain what a session would print, such as unescaped names of nodes.
_FATAL = 4


@dataclass(frozen=True)
class SessionSettings:
    """Settings of a session. Every session prints nothing and accepts ONNX files only, not ONNX Runtime's own format.

    Attributes:
        num_threads: Number of CPU threads of one run; 0 lets ONNX Runtime choose.
        fuses_qdq: Whether ONNX Runtime may replace Q/DQ pairs with integer kernels. If not, every operator computes in
            float between the roundings of the graph, which is closer to what TensorRT computes.
        optimisation: Level of graph optimisation. Beyond ``"extended"``, ``"all"`` also converts maps to a blocked
            layout.
        spins: Whether waiting threads spin; otherwise they sleep.
        has_arena: Whether the memory of a run is kept for the next one.
        profile: Path, without suffix, of a profile to write, which :func:`end_profile` reads; None writes none.
        optimised_model: Path of an ``.onnx`` file for the optimised graph; None writes none.
        config: Further entries of the session's configuration.
    """

    num_threads: int = 0
    fuses_qdq: bool = True
    optimisation: Literal["none", "basic", "extended", "all"] = "all"
    spins: bool = True
    has_arena: bool = True
    profile: Path | None = None
    optimised_model: Path | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> Any:
        """Return ``onnxruntime.SessionOptions`` with these settings.

        Raises:
            BackendUnavailableError: ONNX Runtime is not installed.
        """
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.log_severity_level = _FATAL
        if self.optimisation in _LEVELS:
            options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[self.optimisation])
        options.enable_cpu_mem_arena = self.has_arena
        if self.profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(self.profile)
        if self.optimised_model is not None:
            options.optimized_model_filepath = str(self.optimised_model)
        for key, value in self._entries().items():
            options.add_session_config_entry(key, value)
        return options

    def _entries(self) -> dict[str, str]:
        # Bytes could be taken for ONNX Runtime's own format, whose tensors nobody looked at.
        entries = {"session.load_model_format": "ONNX"}
        if not self.fuses_qdq:
            entries["session.disable_quant_qdq"] = "1"
        if not self.spins:
            entries["session.intra_op.allow_spinning"] = "0"
        return {**entries, **self.config}


def open_cpu_session(model: bytes | os.PathLike[str], settings: SessionSettings | None = None) -> Any:
    """Open a network on ONNX Runtime's CPU provider.

    Args:
        model: The serialised model, whose bytes are not kept, or the path of its file.
        settings: Settings of the session; None means the defaults.

    Returns:
        The ``onnxruntime.InferenceSession`` object.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed.
        Exception: ONNX Runtime rejects the network; its errors have no common base class.
    """
    runtime, options = import_onnxruntime(), (settings or SessionSettings()).options()
    source = model if isinstance(model, bytes) else os.fspath(model)
    session = runtime.InferenceSession(source, options, providers=[CPU_PROVIDER])
    forget_model(session)
    return session


def single_feed(session: Any, tensor: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
    """Return what a session of one input is run with: `tensor` by the input's name, as float16 where it takes that."""
    entry = session.get_inputs()[0]
    return {entry.name: tensor.astype(np.float16) if entry.type == "tensor(float16)" else tensor}


def end_profile(session: Any) -> list[dict[str, Any]]:
    """End the profile of a session with :attr:`SessionSettings.profile`, and return its events."""
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_bytes())
    return events


def run_options(config: Mapping[str, str]) -> Any:
    """Return ``onnxruntime.RunOptions`` with entries in its configuration, for runs that print nothing."""
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = _FATAL
    for key, value in config.items():
        options.add_run_config_entry(key, value)
    return options


def forget_model(session: Any) -> None:
    """Let the model's bytes go. ONNX Runtime keeps them to fall back to another provider, which here is refused."""
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


def import_onnxruntime() -> Any:
    """Return the package ``onnxruntime``.

    Raises:
        BackendUnavailableError: It is not installed, or incomplete; the message says what to type.
    """
    try:
        import onnxruntime
    except ImportError as error:
        missing = MissingDependencyError("onnxruntime", "Running an ONNX model", "ort")
        raise BackendUnavailableError(str(missing)) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendUnavailableError(
            "ONNX Runtime is incomplete: two of its packages, such as onnxruntime and onnxruntime-gpu, were "
            "installed into one folder, and one was removed. Remove both, and install one again: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime, or onnxruntime-gpu"
        )
    return onnxruntime
