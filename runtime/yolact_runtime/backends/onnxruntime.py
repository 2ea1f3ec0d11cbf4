"""ONNX Runtime, on the CPU and on CUDA, with inputs and outputs in host memory.

On the CPU it computes float16 networks in float32, and rounds at few places: what overflows on a GPU does not overflow
there. Their accuracy and their speed there say nothing about an engine; see :func:`float16_note`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.text import decode_json
from yolact_runtime.backends.base import ModelSource, path_of
from yolact_runtime.errors import (
    BackendError,
    BackendUnavailableError,
    BundleError,
    MissingDependencyError,
    YolactError,
)
from yolact_runtime.model.manifest import METADATA_KEY
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_outputs import OutputType

__all__ = ["PROVIDERS", "OnnxRuntimeBackend", "float16_note", "open_session", "require_provider", "run_options"]

_log = logging.getLogger(__name__)
_HOLD_FLOAT16 = frozenset({"fp16", "int8"})
PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-cpu": "CPUExecutionProvider"}
"""Backend name -> ONNX Runtime's name of what it runs on."""
# Of providers that the plain package lacks; both packages have one folder.
_PACKAGES = {"onnxruntime-cuda": ". Type: pip uninstall onnxruntime; pip install onnxruntime-gpu"}


class OnnxRuntimeBackend:
    """A model in ONNX Runtime. Outputs are new host arrays that the caller owns; calls from several threads are safe.

    Args:
        model: The ``.onnx`` file, which is read once; or one that was read. Its bytes are not kept.
        name: ``"onnxruntime-cpu"`` or ``"onnxruntime-cuda"``.
        num_threads: CPU threads of one call; 0 leaves the choice to ONNX Runtime.

    Attributes:
        inputs: What the model declares of its inputs.
        outputs: What the model declares of its outputs.

    Raises:
        BackendUnavailableError: onnxruntime is not installed, or this build or machine lacks the provider.
        BackendError: The file cannot be read, is not an ONNX model or has tensors in other files; or ONNX Runtime
            refuses it.
    """

    def __init__(self, model: ModelSource, name: str = "onnxruntime-cpu", num_threads: int = 0) -> None:
        self.name = name
        self._begin(open_session(model, name, num_threads))

    def _begin(self, session: Any) -> None:
        self._session: Any = session
        self._input_name: str = session.get_inputs()[0].name
        self.inputs = {entry.name: _output_type(entry) for entry in session.get_inputs()}
        # What is no float has been refused by the time that anything is run.
        self._is_half = self.inputs[self._input_name].dtype == "float16"
        self.outputs = {output.name: _output_type(output) for output in session.get_outputs()}

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the model; see :class:`yolact_runtime.backends.base.Backend`."""
        session = self._require_open()
        given = tensor.astype(np.float16) if self._is_half else tensor
        try:
            arrays = session.run(list(self.outputs), {self._input_name: given})
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            # Whoever keeps the error must not keep the session.
            del session
            raise BackendError(
                f"{self.name}: the model failed on an input of shape {tensor.shape}: {error}"
            ) from error.with_traceback(None)
        return dict(zip(self.outputs, arrays, strict=True))

    def close(self) -> None:
        """Free the session; calls that are running finish first."""
        self._session = None

    def _require_open(self) -> Any:
        if self._session is None:
            raise BackendError("the backend was closed; open the model again")
        return self._session


def require_provider(name: str) -> None:
    """Make sure that ONNX Runtime is here, in a build that has what a backend runs on; whether it starts is open.

    Raises:
        BackendUnavailableError: It is not installed, or is a build without the provider.
    """
    runtime, provider = _import_onnxruntime(), PROVIDERS[name]
    if provider not in runtime.get_available_providers():
        raise BackendUnavailableError(
            f"{name}: this build of ONNX Runtime {runtime.__version__} has no {provider}; it has "
            f"{', '.join(runtime.get_available_providers())}{_PACKAGES.get(name, '')}"
        )


def open_session(
    model: ModelSource,
    name: str,
    num_threads: int,
    provider_options: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """Make a session on a backend's provider, and on no other in its place.

    Args:
        model: As for :class:`OnnxRuntimeBackend`.
        name: Of the backend.
        num_threads: CPU threads of one call; 0 leaves the choice to ONNX Runtime.
        provider_options: Of the provider; see `execution providers`_.
        config: Further entries of the session's configuration.

    Returns:
        ``onnxruntime.InferenceSession``.

    Raises:
        BackendUnavailableError, BackendError: As for :class:`OnnxRuntimeBackend`.

    .. _execution providers: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    require_provider(name)
    runtime, provider = _import_onnxruntime(), PROVIDERS[name]
    file = model if isinstance(model, ModelFile) else _read(name, path_of(model))
    options = _session_options(runtime, file, num_threads)
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    asked: Any = provider if provider_options is None else (provider, dict(provider_options))
    if name == "onnxruntime-cuda":
        _load_cuda(runtime)
    try:
        # It prints what became of a provider, where results may go.
        with redirect_stdout(sys.stderr):
            session = runtime.InferenceSession(file.content, options, providers=[asked])
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        # These two are what it takes itself for a provider's failure, before it tries the CPU, which may be forbidden.
        reason = error.__cause__ or error
        if name == "onnxruntime-cuda" and isinstance(reason, RuntimeError | ValueError):
            raise BackendUnavailableError(f"{name}: {provider} does not start on this machine: {reason}") from error
        raise BackendError(f"{name}: ONNX Runtime {runtime.__version__} cannot load {file.path}: {error}") from error
    if session.get_providers()[0] != provider:
        # ONNX Runtime falls back to the CPU with a log line only; a robot must not be slow in silence.
        raise BackendUnavailableError(
            f"{name}: {provider} does not start on this machine: there is no driver, or ONNX Runtime "
            f"{runtime.__version__} does not find the CUDA and cuDNN that it was built for "
            f'(pip install "onnxruntime-gpu[cuda,cudnn]")'
        )
    _forget_model(session)
    return session


def run_options(config: Mapping[str, str]) -> Any:
    """Make ``onnxruntime.RunOptions`` with entries in its configuration, for runs that print nothing."""
    options = _import_onnxruntime().RunOptions()
    # As for a session: what it would print is in its exceptions, too.
    options.log_severity_level = 4
    for key, value in config.items():
        options.add_run_config_entry(key, value)
    return options


def _session_options(runtime: Any, file: ModelFile, num_threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # What it would print itself, names of nodes with whatever is in them, is in its exceptions, too.
    options.log_severity_level = 4
    # Bytes could be taken for ONNX Runtime's own format, whose tensors nobody looked at.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if _is_for_tensorrt(file):
        # ONNX Runtime 1.32 rewrites float16 graphs with Q/DQ into ones that compute something else: the masks of
        # balloons.pth agreed with those of its float32 network at an AP of 0.10, unfused at 0.93. As they are
        # written they are slow here, and right.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _output_type(output: Any) -> OutputType:
    """ONNX Runtime's ``tensor(float)`` and ``["batch", 90, 4]`` in NumPy's words; ``[]`` is an unknown shape."""
    kind = output.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in output.shape)
    return OutputType({"float": "float32", "double": "float64"}.get(kind, kind), shape or None)


def float16_note(backend: str, precision: str) -> str | None:
    """What has to be said beside figures of a network on a backend; None where there is nothing to be said.

    Args:
        backend: Its name.
        precision: Of the network, as bundles name it.
    """
    if backend != "onnxruntime-cpu" or precision not in _HOLD_FLOAT16:
        return None
    return (
        f"ONNX Runtime computes the float16 of {precision} in float32 on a CPU, so these figures are not those of an "
        f"engine, and an overflow does not show. What an engine would lose is in the bundle's report.json"
    )


def _read(name: str, path: Path) -> ModelFile:
    try:
        return ModelFile.read(path)
    except BundleError as error:
        raise BackendError(f"{name}: cannot load {path}: {error}") from error


def _forget_model(session: Any) -> None:
    """Let the model's bytes go. ONNX Runtime keeps them to fall back to another provider, which here is refused."""
    session.disable_fallback()
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


def _is_for_tensorrt(model: ModelFile) -> bool:
    """The graph is INT8 in TensorRT's form; a file without our manifest is not."""
    try:
        manifest = decode_json(model.metadata().get(METADATA_KEY, "{}").encode(), str(model.path))
    except YolactError:
        # Whatever is wrong with the file, loading it says so.
        return False
    return isinstance(manifest, dict) and manifest.get("precision") == "int8"


def _load_cuda(runtime: Any) -> None:
    """Load the CUDA and cuDNN that pip installed, which lie where no loader looks; since ONNX Runtime 1.21."""
    try:
        is_there = find_spec("nvidia.cudnn") is not None
    except ModuleNotFoundError:
        is_there = False
    # Without them it would print that they are missing, which is no fault: the system may have them.
    if not is_there or not hasattr(runtime, "preload_dlls"):
        return
    try:
        # It prints what it does not find, where results may go.
        with redirect_stdout(sys.stderr):
            runtime.preload_dlls()
    except Exception as error:  # as above; the session finds what the system has, or says what is missing
        # In words: a record that is kept must not keep the session, by way of the traceback.
        _log.warning("ONNX Runtime cannot load the CUDA and cuDNN that pip installed: %s", str(error))


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        missing = MissingDependencyError("onnxruntime", "Running an ONNX model", "ort")
        raise BackendUnavailableError(str(missing)) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendUnavailableError(
            "ONNX Runtime is here in parts only: two of its packages, such as onnxruntime and onnxruntime-gpu, were "
            "installed into one folder, and one was removed. Remove both, and install one again: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime, or onnxruntime-gpu"
        )
    return onnxruntime
