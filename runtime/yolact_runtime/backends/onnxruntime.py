"""ONNX Runtime, on the CPU and on CUDA, with inputs and outputs in host memory.

On the CPU, ONNX Runtime computes float16 networks in float32 and rounds in few places: values that overflow on a GPU do
not overflow there. Accuracy and speed measured there do not predict those of an engine; see :func:`float16_note`.
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
from yolact_runtime.backends.onnxruntime_session import (
    CPU_PROVIDER,
    SessionSettings,
    forget_model,
    import_onnxruntime,
    single_feed,
)
from yolact_runtime.errors import BackendError, BackendUnavailableError, BundleError, YolactError
from yolact_runtime.model.manifest import METADATA_KEY
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_outputs import OutputType

__all__ = ["PROVIDERS", "OnnxRuntimeBackend", "float16_note", "open_session", "require_provider"]

_log = logging.getLogger(__name__)
_HOLD_FLOAT16 = frozenset({"fp16", "int8"})
PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-cpu": CPU_PROVIDER}
"""Backend name -> name of its ONNX Runtime execution provider."""
# Advice for providers that the plain package lacks; both packages install into one folder.
_PACKAGES = {"onnxruntime-cuda": ". Type: pip uninstall onnxruntime; pip install onnxruntime-gpu"}


class OnnxRuntimeBackend:
    """A model in ONNX Runtime. Outputs are new host arrays that the caller owns; calls from several threads are safe.

    Args:
        model: The ``.onnx`` file, which is read once, or its content. The bytes are not kept.
        name: Name of the backend: ``"onnxruntime-cpu"`` or ``"onnxruntime-cuda"``.
        num_threads: Number of CPU threads per call; 0 lets ONNX Runtime choose.

    Attributes:
        inputs: Declared types and shapes of the inputs, by name.
        outputs: Declared types and shapes of the outputs, by name.

    Raises:
        BackendUnavailableError: onnxruntime is not installed, or this build or machine lacks the provider.
        BackendError: The file cannot be read, is not an ONNX model, or has tensors in other files; or ONNX Runtime
            rejects it.
    """

    def __init__(self, model: ModelSource, name: str = "onnxruntime-cpu", num_threads: int = 0) -> None:
        self.name = name
        self._begin(open_session(model, name, num_threads))

    def _begin(self, session: Any) -> None:
        self._session: Any = session
        self.inputs = {entry.name: _output_type(entry) for entry in session.get_inputs()}
        self.outputs = {output.name: _output_type(output) for output in session.get_outputs()}

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the model; see :class:`yolact_runtime.backends.base.Backend`."""
        session = self._require_open()
        try:
            arrays = session.run(list(self.outputs), single_feed(session, tensor))
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            # An error that is kept must not keep the session alive.
            del session
            raise BackendError(
                f"{self.name}: the model failed on an input of shape {tensor.shape}: {error}"
            ) from error.with_traceback(None)
        return dict(zip(self.outputs, arrays, strict=True))

    def close(self) -> None:
        """Free the session; running calls finish first."""
        self._session = None

    def _require_open(self) -> Any:
        if self._session is None:
            raise BackendError("the backend was closed; open the model again")
        return self._session


def require_provider(name: str) -> None:
    """Check that ONNX Runtime is installed with the provider of a backend, without starting the provider.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed, or lacks the provider.
    """
    runtime, provider = import_onnxruntime(), PROVIDERS[name]
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
    """Create a session on a backend's provider, without falling back to another one.

    Args:
        model: The model; see :class:`OnnxRuntimeBackend`.
        name: Name of the backend.
        num_threads: Number of CPU threads per call; 0 lets ONNX Runtime choose.
        provider_options: Options of the provider; see `execution providers`_.
        config: Further entries of the session's configuration.

    Returns:
        The ``onnxruntime.InferenceSession`` object.

    Raises:
        BackendUnavailableError, BackendError: The same as for :class:`OnnxRuntimeBackend`.

    .. _execution providers: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    require_provider(name)
    runtime, provider = import_onnxruntime(), PROVIDERS[name]
    file = model if isinstance(model, ModelFile) else _read(name, path_of(model))
    # ONNX Runtime 1.32 rewrites float16 graphs with Q/DQ into ones that compute something else: the masks of
    # balloons.pth agreed with those of its float32 network at an AP of 0.10, unfused at 0.93. As they are written they
    # are slow here, and right.
    settings = SessionSettings(num_threads, fuses_qdq=not _is_for_tensorrt(file), config=config or {})
    asked: Any = provider if provider_options is None else (provider, dict(provider_options))
    if name == "onnxruntime-cuda":
        _load_cuda(runtime)
    try:
        # ONNX Runtime prints the outcome to stdout, where results may go.
        with redirect_stdout(sys.stderr):
            session = runtime.InferenceSession(file.content, settings.options(), providers=[asked])
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        # ONNX Runtime itself treats these two as a provider's failure before it tries the CPU, which may be forbidden.
        reason = error.__cause__ or error
        if name == "onnxruntime-cuda" and isinstance(reason, RuntimeError | ValueError):
            raise BackendUnavailableError(f"{name}: {provider} does not start on this machine: {reason}") from error
        raise BackendError(f"{name}: ONNX Runtime {runtime.__version__} cannot load {file.path}: {error}") from error
    if session.get_providers()[0] != provider:
        # ONNX Runtime falls back to the CPU with only a log line; a robot must not become slow silently.
        raise BackendUnavailableError(
            f"{name}: {provider} does not start on this machine: there is no driver, or ONNX Runtime "
            f"{runtime.__version__} does not find the CUDA and cuDNN that it was built for "
            f'(pip install "onnxruntime-gpu[cuda,cudnn]")'
        )
    forget_model(session)
    return session


def _output_type(output: Any) -> OutputType:
    """Convert ONNX Runtime's ``tensor(float)`` and ``["batch", 90, 4]`` to NumPy's terms.

    ``[]`` is an unknown shape.
    """
    kind = output.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in output.shape)
    return OutputType({"float": "float32", "double": "float64"}.get(kind, kind), shape or None)


def float16_note(backend: str, precision: str) -> str | None:
    """Return a note to print beside figures of a network on a backend; None if there is nothing to note.

    Args:
        backend: Name of the backend.
        precision: Precision of the network, such as ``"int8"``.
    """
    if backend != "onnxruntime-cpu" or precision not in _HOLD_FLOAT16:
        return None
    return (
        f"ONNX Runtime computes the float16 of {precision} in float32 on a CPU: these figures do not apply to an "
        f"engine, and an overflow does not show. What an engine would lose is in the bundle's report.json"
    )


def _read(name: str, path: Path) -> ModelFile:
    try:
        return ModelFile.read(path)
    except BundleError as error:
        raise BackendError(f"{name}: cannot load {path}: {error}") from error


def _is_for_tensorrt(model: ModelFile) -> bool:
    """Return whether the graph is INT8 in TensorRT's form; a file without our manifest is not."""
    try:
        manifest = decode_json(model.metadata().get(METADATA_KEY, "{}").encode(), str(model.path))
    except YolactError:
        # Loading the file reports what is wrong with it.
        return False
    return isinstance(manifest, dict) and manifest.get("precision") == "int8"


def _load_cuda(runtime: Any) -> None:
    """Load the CUDA and cuDNN installed by pip, which the loader does not find; since ONNX Runtime 1.21."""
    try:
        is_there = find_spec("nvidia.cudnn") is not None
    except ModuleNotFoundError:
        is_there = False
    # Without these packages it would print that they are missing, although the system may have them.
    if not is_there or not hasattr(runtime, "preload_dlls"):
        return
    try:
        # It prints missing libraries to stdout, where results may go.
        with redirect_stdout(sys.stderr):
            runtime.preload_dlls()
    except Exception as error:  # as above; the session finds the system's libraries, or reports what is missing
        # Formatted as text: a log record that is kept must not keep the session through its traceback.
        _log.warning("ONNX Runtime cannot load the CUDA and cuDNN that pip installed: %s", str(error))
