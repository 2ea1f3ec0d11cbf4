"""TensorRT's two Python packages, ``tensorrt`` (10.3 and newer) and ``tensorrt_rtx``: import, version, log.

This is the only module of the runtime that imports them, and it does so when asked, not when it is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from yolact_plugins.gpu import cuda_extra
from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError, UsageError

__all__ = ["LIBRARIES", "LogLine", "TensorRtLibrary", "load_tensorrt", "module_name", "version_numbers"]

LIBRARIES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""Target -> Python package. ``"tensorrt"`` builds for the GPU at hand, ``"rtx"`` on any machine for RTX GPUs."""
_PURPOSES = {
    "tensorrt": "Working with TensorRT engines (on a Jetson, JetPack's package python3-libnvinfer and a virtual "
    "environment with --system-site-packages; elsewhere the extra)",
    "rtx": "Working with TensorRT-RTX engines",
}
_SEVERITIES = ("internal error", "error", "warning", "info", "verbose")
# Older releases know neither strong typing in this form nor builds to a named compute capability.
_OLDEST = (10, 3)


@dataclass(frozen=True)
class LogLine:
    """One message of TensorRT. ``severity`` is "internal error", "error", "warning", "info" or "verbose"."""

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """TensorRT calls it an error."""
        return self.severity.endswith("error")


Sink = Callable[[LogLine], None]


class TensorRtLibrary:
    """An imported TensorRT package and its one logger.

    Make it with :func:`load_tensorrt`, which returns the same object for every call: TensorRT takes the first logger
    that it is given and ignores every later one while any of its objects lives, so there is one for the process, and
    whoever wants to read along adds a sink.

    Attributes:
        target: A key of :data:`LIBRARIES`.
        module: The package.
        version: Such as ``"10.3.0"``.
        logger: To be given to ``Builder``, ``OnnxParser`` and ``Runtime``.
    """

    def __init__(self, target: str, module: Any) -> None:
        self.target = target
        self.module = module
        self.version: str = module.__version__
        self._sinks: list[Sink] = []
        self._lock = threading.Lock()
        self.logger = self._make_logger()

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """Major, minor and patch, for comparisons."""
        return version_numbers(self.version)

    @contextlib.contextmanager
    def listen(self, sink: Sink) -> Iterator[None]:
        """Give every message of TensorRT to `sink` while the block runs, from whatever thread it comes."""
        with self._lock:
            self._sinks.append(sink)
        try:
            yield
        finally:
            with self._lock:
                self._sinks.remove(sink)

    def _make_logger(self) -> Any:
        library = self
        severities = dict(zip(_severity_values(self.module), _SEVERITIES, strict=True))

        class Logger(self.module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                # TensorRT's own base class must be initialised by name, or its first call ends the process.
                library.module.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                line = LogLine(severities.get(int(severity), "verbose"), text)
                with library._lock:
                    sinks = list(library._sinks)
                for sink in sinks:
                    sink(line)

        return Logger()


def _severity_values(module: Any) -> list[int]:
    names = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    return [int(getattr(module.ILogger.Severity, name)) for name in names]


_loaded: dict[str, TensorRtLibrary] = {}
_loading = threading.Lock()


def load_tensorrt(target: str) -> TensorRtLibrary:
    """Import a TensorRT package, once per process.

    Args:
        target: A key of :data:`LIBRARIES`.

    Raises:
        UsageError: No such target.
        MissingDependencyError: The package is not installed.
        BackendUnavailableError: It is installed and does not load (a library of its own is missing), or is too old.
    """
    name = module_name(target)
    with _loading:
        if target not in _loaded:
            _loaded[target] = TensorRtLibrary(target, _import(target, name))
        return _loaded[target]


def module_name(target: str) -> str:
    """Python package of a target.

    Raises:
        UsageError: No such target.
    """
    if target not in LIBRARIES:
        raise UsageError(f'no TensorRT target "{target}"; there are {", ".join(LIBRARIES)}')
    return LIBRARIES[target]


def version_numbers(version: str) -> tuple[int, ...]:
    """``"10.3.0.post1"`` -> ``(10, 3, 0)``."""
    numbers = []
    for part in version.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _import(target: str, name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == name:
            # The extras of CUDA 13 have no number.
            extra = f"{target}-cuda12" if cuda_extra() == "cuda12" else target
            raise MissingDependencyError(name, _PURPOSES[target], extra) from error
        raise BackendUnavailableError(f"{name} is installed and cannot be imported: {error}") from error
    except (ImportError, OSError, RuntimeError) as error:
        # A missing libnvinfer, libcudart or, in older Jetson containers, libnvdla_compiler.so.
        raise BackendUnavailableError(
            f"{name} is installed and does not load: {error}. A library that it needs is missing or of another "
            f"version. On a Jetson all packages, and a container's image, must be of the installed JetPack; elsewhere "
            f"reinstall {name}"
        ) from error
    if not hasattr(module, "Builder"):
        raise BackendUnavailableError(
            f"{name} is installed without its libraries: the module has no Builder; reinstall it with its dependencies"
        )
    if target == "tensorrt" and version_numbers(module.__version__)[:2] < _OLDEST:
        raise BackendUnavailableError(
            f"tensorrt {module.__version__} is too old: 10.3 (JetPack 6.1) or newer is needed; update JetPack, or use "
            f"ONNX Runtime on this machine"
        )
    return module
