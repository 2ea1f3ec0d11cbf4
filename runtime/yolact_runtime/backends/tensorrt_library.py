"""TensorRT's two Python packages, ``tensorrt`` (10.3 and newer) and ``tensorrt_rtx``: import, version, log.

This is the only module of the runtime that imports them, and it does so on request only.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from yolact_plugins.driver.gpu import cuda_extra
from yolact_runtime.errors import BackendUnavailableError, MissingDependencyError, UsageError

__all__ = [
    "LATER",
    "LIBRARIES",
    "CallLog",
    "LogLine",
    "TensorRtLibrary",
    "capability_numbers",
    "covers",
    "load_tensorrt",
    "module_name",
    "version_numbers",
]

LIBRARIES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""Target -> Python package. ``"tensorrt"`` builds for the local GPU, ``"rtx"`` on any machine for RTX GPUs."""
_PURPOSES = {
    "tensorrt": "Working with TensorRT engines (on a Jetson, JetPack's package python3-libnvinfer and a virtual "
    "environment with --system-site-packages; elsewhere the extra)",
    "rtx": "Working with TensorRT-RTX engines",
}
_SEVERITIES = ("internal error", "error", "warning", "info", "verbose")
# Older releases support neither strong typing in this form nor builds for a named compute capability.
_OLDEST = (10, 3)
_REMEMBERED_LINES = 10
_AMPERE = (8, 0)
LATER = " and later"
"""Suffix of a list of compute capabilities that includes all that are newer than its last."""


@dataclass(frozen=True)
class LogLine:
    """One message of TensorRT. ``severity`` is "internal error", "error", "warning", "info" or "verbose"."""

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether TensorRT classifies the message as an error."""
        return self.severity.endswith("error")


Sink = Callable[[LogLine], None]


class CallLog:
    """The errors and warnings of TensorRT about some of its calls, for error messages."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=_REMEMBERED_LINES)

    def add(self, line: LogLine) -> None:
        """Keep an error or a warning; ignore other messages."""
        if line.is_error or line.severity == "warning":
            self._lines.append(line)

    @property
    def has_errors(self) -> bool:
        """Whether TensorRT reported an error, for functions that return nothing."""
        return any(line.is_error for line in list(self._lines))

    def tail(self) -> str:
        """Return the errors and warnings in a form to append to an error message."""
        words = [line.text for line in list(self._lines)]
        return ":" + "".join(f"\n  {text}" for text in words) if words else "; it logged nothing"


class TensorRtLibrary:
    """An imported TensorRT package and its one logger.

    Use :func:`load_tensorrt` to create it, which returns the same object for every call: TensorRT takes the first
    logger that it gets and ignores later ones while any of its objects lives, so there is one logger per process, to
    which callers add sinks.

    Attributes:
        target: A key of :data:`LIBRARIES`.
        module: The imported package.
        version: Version of the package, such as ``"10.3.0"``.
        logger: The logger for ``Builder``, ``OnnxParser`` and ``Runtime``.
    """

    def __init__(self, target: str, module: Any) -> None:
        self.target = target
        self.module = module
        self.version: str = module.__version__
        self._sinks: list[Sink] = []
        # Thread id -> the logs of the calls that the thread is making, the outermost first.
        self._calls: dict[int, list[CallLog]] = {}
        # Reentrant: garbage collection may cause a message of TensorRT while the lock is held.
        self._lock = threading.RLock()
        self.logger = self._make_logger()

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """Major, minor and patch, for comparisons."""
        return version_numbers(self.version)

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that TensorRT-RTX builds for, such as ``("7.5", "8.0")``; empty for TensorRT."""
        names = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in names if re.fullmatch(r"SM\d{2,3}", name))

    @property
    def default_capabilities(self) -> str:
        """Capabilities that a build without a named GPU supports, by NVIDIA's documentation; not Turing (7.5)."""
        known = [each for each in self.compute_capabilities if capability_numbers(each) >= _AMPERE]
        return ", ".join(known or ["8.0"]) + LATER

    @contextlib.contextmanager
    def listen(self, sink: Sink) -> Iterator[None]:
        """Pass every message of TensorRT to `sink` during the block, from whichever thread."""
        with self._lock:
            self._sinks.append(sink)
        try:
            yield
        finally:
            with self._lock:
                self._sinks.remove(sink)

    @contextlib.contextmanager
    def collect(self) -> Iterator[CallLog]:
        """Collect the errors and warnings about the calls that this thread makes inside the block.

        Messages about calls of other threads are excluded. A message from one of TensorRT's own threads goes into the
        log of every open block, because its cause is unknown.
        """
        thread, log = threading.get_ident(), CallLog()
        with self._lock:
            self._calls.setdefault(thread, []).append(log)
        try:
            yield log
        finally:
            with self._lock:
                self._calls[thread].pop()
                if not self._calls[thread]:
                    del self._calls[thread]

    def _hear(self, line: LogLine) -> None:
        with self._lock:
            sinks = list(self._sinks)
            own = self._calls.get(threading.get_ident())
            for log in own or [log for logs in self._calls.values() for log in logs]:
                log.add(line)
        for sink in sinks:
            sink(line)

    def _make_logger(self) -> Any:
        library = self
        severities = dict(zip(_severity_values(self.module), _SEVERITIES, strict=True))

        class Logger(self.module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                # TensorRT's own base class must be initialised by name, or its first call ends the process.
                library.module.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                library._hear(LogLine(severities.get(int(severity), "verbose"), text))

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
        UsageError: There is no such target.
        MissingDependencyError: The package is not installed.
        BackendUnavailableError: The package is installed but does not load (a library it needs is missing), or is too
            old.
    """
    name = module_name(target)
    with _loading:
        if target not in _loaded:
            _loaded[target] = TensorRtLibrary(target, _import(target, name))
        return _loaded[target]


def module_name(target: str) -> str:
    """Return the Python package of a target.

    Raises:
        UsageError: There is no such target.
    """
    if target not in LIBRARIES:
        raise UsageError(f'no TensorRT target "{target}"; there are {", ".join(LIBRARIES)}')
    return LIBRARIES[target]


def version_numbers(version: str) -> tuple[int, ...]:
    """Parse a version: ``(10, 3, 0)`` for ``"10.3.0.post1"``."""
    numbers = []
    for part in version.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def capability_numbers(capability: str) -> tuple[int, ...]:
    """Parse a compute capability for comparisons: ``(12, 0)`` for ``"12.0"``."""
    return tuple(int(part) for part in capability.split(".") if part.isdigit())


def covers(listed: str, capability: str) -> bool:
    """Return whether a list of compute capabilities includes that of a GPU.

    Args:
        listed: The list, such as ``"8.6, 8.9"``; with :data:`LATER` at its end, it includes all that are newer than its
            last.
        capability: Compute capability of the GPU.
    """
    names = listed.removesuffix(LATER).split(", ")
    newest = max(capability_numbers(name) for name in names)
    return capability in names or (listed.endswith(LATER) and capability_numbers(capability) > newest)


def _import(target: str, name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == name:
            # The extras for CUDA 13 have no number.
            extra = f"{target}-cuda12" if cuda_extra() == "cuda12" else target
            raise MissingDependencyError(name, _PURPOSES[target], extra) from error
        raise BackendUnavailableError(f"{name} is installed and cannot be imported: {error}") from error
    except (ImportError, OSError, RuntimeError) as error:
        # The cause is a missing libnvinfer, libcudart or, in older Jetson containers, libnvdla_compiler.so.
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
